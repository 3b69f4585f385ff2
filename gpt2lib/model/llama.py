"""Llama (Touvron et al. 2023, arXiv 2302.13971; keys and values are shared from Llama 2 on, 2307.09288): what it
changes in GPT-2's block are the norm, where positions enter, the sharing, and the feed-forward layer. No layer has a
bias."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2lib.model.attention import KVCache, rows_at
from gpt2lib.model.config import LlamaConfig
from gpt2lib.model.decoder import Decoder
from gpt2lib.model.linear import Linear


class RMSNorm(nn.Module):
    """g x / sqrt(mean(x^2) + eps), in float32 or better: no mean is taken off and nothing is added (Zhang and Sennrich
    2019, arXiv 1910.07467). d parameters."""

    def __init__(self, n_embd: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_embd))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., n_embd] -> [..., n_embd]"""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # squares of bf16 would lose what the sum needs
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)  # [..., 1]
        return (wide * scale * self.weight).to(x.dtype)


def rotary_angles(position_ids: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin of t theta^(-2i / head_dim) at position t, for pair i: [..., seq] -> [..., seq, head_dim / 2] each.

    In float32: at position 8,000 bf16 would be off by whole turns (Su et al. 2021, arXiv 2104.09864).
    """
    pairs = torch.arange(0, head_dim, 2, device=position_ids.device, dtype=torch.float32)
    angles = position_ids[..., None].float() / theta ** (pairs / head_dim)
    return angles.cos(), angles.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pair (i, i + head_dim / 2) of every vector by its angle: [batch, heads, seq, head_dim] -> the same.

    cos, sin: [batch or 1, 1, seq, head_dim / 2], of `rotary_angles`. A query's product with a key
    then depends on how far apart they stand, and on nothing else about where.
    """
    first, second = x.chunk(2, dim=-1)  # [batch, heads, seq, head_dim / 2] each
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)


class GroupedAttention(nn.Module):
    """Causal attention with rotary positions, in which n_head / n_kv_head query heads share a key and a value head
    (Ainslie et al. 2023, arXiv 2305.13245): d^2 (2 + 2 n_kv_head / n_head) parameters, and that much less to cache."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.head_dim, self.theta = config.head_dim, config.rope_theta
        self.q = Linear(config.n_embd, config.n_embd, bias=False)
        self.k = Linear(config.n_embd, config.n_kv_head * config.head_dim, bias=False)
        self.v = Linear(config.n_embd, config.n_kv_head * config.head_dim, bias=False)
        self.o = Linear(config.n_embd, config.n_embd, bias=False)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        read: Tensor | None = None,
        cos: Tensor | None = None,
        sin: Tensor | None = None,
    ) -> Tensor:
        """As `CausalSelfAttention.forward`; cos, sin: as `apply_rope` takes them, by default of positions 0, 1, ..."""
        batch, seq, _ = x.shape
        if cos is None:
            cos, sin = rotary_angles(torch.arange(seq, device=x.device)[None, None], self.head_dim, self.theta)
        k = apply_rope(self.split_heads(self.k(x)), cos, sin)  # [batch, n_kv_head, seq, head_dim]
        v = self.split_heads(self.v(x))
        if read is not None:
            x = rows_at(x, read)  # [batch, 1, n_embd]
            cos, sin = (rows_at(t[:, 0].expand(batch, -1, -1), read)[:, None] for t in (cos, sin))
            mask = (torch.arange(seq, device=x.device) <= read[:, None])[:, None, None]  # [batch, 1, 1, seq]
        q = apply_rope(self.split_heads(self.q(x)), cos, sin)  # [batch, n_head, seq, head_dim]
        if cache is not None:
            k, v = cache.extend(self, k, v)  # [batch, n_kv_head, cached + seq, head_dim]
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None and q.shape[2] == k.shape[2], enable_gqa=True
        )  # [batch, n_head, seq, head_dim]
        return self.o(y.transpose(1, 2).flatten(2))  # [batch, seq, n_embd]

    def split_heads(self, x: Tensor) -> Tensor:
        """[batch, seq, heads * head_dim] -> [batch, heads, seq, head_dim]"""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)): one matrix says what could be written, another how much of it (Shazeer 2020, arXiv
    2002.05202). 3 d n_inner parameters."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.gate = Linear(config.n_embd, config.n_inner, bias=False)
        self.up = Linear(config.n_embd, config.n_inner, bias=False)
        self.down = Linear(config.n_inner, config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, seq, n_embd] -> [batch, seq, n_embd]"""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class LlamaBlock(nn.Module):
    """x + attn(ln_1(x)), then x + mlp(ln_2(x)), as in GPT-2."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.ln_1 = RMSNorm(config.n_embd, config.rms_norm_eps)
        self.attn = GroupedAttention(config)
        self.ln_2 = RMSNorm(config.n_embd, config.rms_norm_eps)
        self.mlp = SwiGLU(config)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        read: Tensor | None = None,
        cos: Tensor | None = None,
        sin: Tensor | None = None,
    ) -> Tensor:
        """[batch, seq, n_embd] -> [batch, seq, n_embd], or [batch, 1, n_embd] for the positions `read`: [batch]"""
        update = self.attn(self.ln_1(x), mask, cache, read, cos, sin)
        x = (x if read is None else rows_at(x, read)) + update
        return x + self.mlp(self.ln_2(x))


class Llama(Decoder):
    """Token embedding, blocks that know positions by rotation, a final norm.

    Parameters: d vocab_size (twice that if the output layer is not tied) + n_layer (d^2 (2 + 2 n_kv_head / n_head)
    + 3 d n_inner + 2 d) + d.
    """

    config_class = LlamaConfig

    def __init__(self, config: LlamaConfig):
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(LlamaBlock(config) for _ in range(config.n_layer))
        self.ln_f = RMSNorm(config.n_embd, config.rms_norm_eps)
        if not config.tie_word_embeddings:
            self.output_weight = nn.Parameter(torch.empty(config.vocab_size, config.n_embd))
        self.reset_parameters()

    def embed(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        return self.wte(input_ids)  # [batch, seq, n_embd]

    def rotation(self, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        positions = torch.atleast_2d(position_ids)[:, None]  # [batch or 1, 1, seq]: one angle for all heads
        return rotary_angles(positions, self.config.head_dim, self.config.rope_theta)
