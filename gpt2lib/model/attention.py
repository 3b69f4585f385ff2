"""Causal self-attention with separate query, key and value layers, and the key/value cache that decoding reuses."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2lib.model.config import GPT2Config
from gpt2lib.model.linear import Linear


class KVCache:
    """What every layer keeps of the tokens seen so far: its keys and values, or whatever else it needs again.

    Each tensor has the positions in its last dimension but one, and room for max_length of them, allocated at the first
    use; `length` counts the positions that are filled.
    """

    def __init__(self, max_length: int):
        self.max_length = max_length
        self.length = 0
        self.kept: dict[object, list[Tensor]] = {}

    def extend(self, layer, *new: Tensor) -> list[Tensor]:
        """Store the new positions of one layer, [..., seq, features] each, and return all of that layer's positions.

        layer: anything that tells layers apart. The model moves `length` when all layers are through.
        """
        if layer not in self.kept:  # only now are device and precision known
            self.kept[layer] = [t.new_empty(*t.shape[:-2], self.max_length, t.shape[-1]) for t in new]
        end = self.length + new[0].shape[-2]
        for kept, tensor in zip(self.kept[layer], new, strict=True):
            kept[..., self.length : end, :] = tensor
        return [kept[..., :end, :] for kept in self.kept[layer]]


class CausalSelfAttention(nn.Module):
    """softmax(Q K^T / sqrt(head_dim)) V per head, each token seeing itself and earlier ones (Vaswani et al. 2017).

    q, k, v, o are separate d x d layers with biases (GPT-2 stores q, k, v fused), so that an adapter can choose among
    them: 4 d^2 + 4 d parameters.
    """

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.n_head = config.n_head
        self.attn_pdrop = config.attn_pdrop
        self.q = Linear(config.n_embd, config.n_embd)
        self.k = Linear(config.n_embd, config.n_embd)
        self.v = Linear(config.n_embd, config.n_embd)
        self.o = Linear(config.n_embd, config.n_embd)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, cache: KVCache | None = None, read: Tensor | None = None
    ) -> Tensor:
        """x: [batch, seq, n_embd] -> [batch, seq, n_embd], or [batch, 1, n_embd] for the positions `read`: [batch].

        mask: bool, broadcastable to [batch, n_head, seq, cached + seq], True where a token may look; None is causal
        without a cache, and lets the one new token see all of them with a cache (see `attention_mask_of`).
        """
        if read is not None:
            mask = (torch.arange(x.shape[1], device=x.device) <= read[:, None])[:, None, None]  # [batch, 1, 1, seq]
        q = self.split_heads(self.q(x if read is None else rows_at(x, read)))
        k, v = self.split_heads(self.k(x)), self.split_heads(self.v(x))
        if cache is not None:
            k, v = cache.extend(self, k, v)  # [batch, n_head, cached + seq, head_dim]
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.attn_pdrop if self.training else 0.0,
            is_causal=mask is None and q.shape[2] == k.shape[2],
        )  # [batch, n_head, seq, head_dim]
        return self.o(y.transpose(1, 2).flatten(2))  # [batch, seq, n_embd]

    def weights(self, x: Tensor) -> Tensor:
        """The attention pattern of a batch without padding, to look at: [batch, n_head, seq, seq], rows sum to 1."""
        q, k = self.split_heads(self.q(x)), self.split_heads(self.k(x))
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # [batch, n_head, seq, seq]
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        return scores.masked_fill(later, float("-inf")).softmax(-1)

    def split_heads(self, x: Tensor) -> Tensor:
        """[batch, seq, n_embd] -> [batch, n_head, seq, head_dim]"""
        return x.unflatten(-1, (self.n_head, -1)).transpose(1, 2)


def rows_at(x: Tensor, positions: Tensor) -> Tensor:
    """One position of each sequence: [batch, seq, features], [batch] -> [batch, 1, features]."""
    return x[torch.arange(len(x), device=x.device), positions][:, None]


def attention_mask_of(attention_mask: Tensor | None, seq: int, past: int, device) -> Tensor | None:
    """The mask that `CausalSelfAttention` needs, or None where plain causal attention already does the right thing.

    attention_mask: [batch, past + seq], 1 = real token. Padding on the right needs no mask: no real token looks to its
    right. A query that is padding itself may always see itself, so that no softmax is empty.
    """
    if attention_mask is not None:
        real = attention_mask.bool()
        if (real[:, 1:] & ~real[:, :-1]).any():  # a real token after a padding token
            mask = real[:, None, :] & causal_mask(seq, past, device)  # [batch, seq, past + seq]
            return (mask | torch.eye(past + seq, dtype=torch.bool, device=device)[past:])[:, None]
    if past == 0 or seq == 1:
        return None
    return causal_mask(seq, past, device)[None, None]  # [1, 1, seq, past + seq]


def causal_mask(seq: int, past: int, device) -> Tensor:
    """[seq, past + seq], True where a token may look: at itself and to its left."""
    return torch.ones(seq, past + seq, dtype=torch.bool, device=device).tril(past)
