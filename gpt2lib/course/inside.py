"""What goes on inside a model while it reads: attention patterns, hidden states, and what they say of the next token.

Works for every family and with an adapter attached: nothing in the model is changed for it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gpt2lib.adapters.lora import LoRALinear
from gpt2lib.data.batches import Batch
from gpt2lib.model.decoder import Decoder


@dataclass(frozen=True)
class Inside:
    """hidden: [n_layer + 1, batch, seq, n_embd], the residual path before the first block and after each, unnormed.
    patterns: [n_layer, batch, n_head, seq, seq], rows sum to 1."""

    hidden: Tensor
    patterns: Tensor


class _Patterns(TorchFunctionMode):
    """Computes the weights of every attention that runs under it, which the fused kernel never forms, a second time."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            q, k = args[:2]
            k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)  # a key head that several query heads share
            scores = q @ k.mT / q.shape[-1] ** 0.5  # [batch, n_head, seq, seq]
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
            self.found.append(scores.masked_fill(later, -torch.inf).softmax(-1))
        return function(*args, **(kwargs or {}))


@torch.no_grad()
def look_inside(model: Decoder, ids: Tensor) -> Inside:
    """Run a model on a batch without padding and keep what passed through it. ids: [batch, seq]."""
    hidden: list[Tensor] = []
    hooks = [model.blocks[0].register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0]))]
    hooks += [block.register_forward_hook(lambda _, inputs, output: hidden.append(output)) for block in model.blocks]
    try:
        with _Patterns() as patterns:
            model(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return Inside(torch.stack(hidden), torch.stack(patterns.found))


@torch.no_grad()
def lens(model: Decoder, hidden: Tensor) -> Tensor:
    """Log-probabilities of the next token, had the model ended where each hidden state was taken: [..., n_embd] ->
    [..., vocab_size] (the logit lens, nostalgebraist 2020)."""
    return model.logits(model.ln_f(hidden)).float().log_softmax(-1)


def repeated(vocab_size: int, length: int, rows: int, seed: int = 0) -> Tensor:
    """Random tokens, twice in a row: [rows, 2 length]. Nothing but the first half can tell the second."""
    half = torch.randint(vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))
    return torch.cat([half, half], 1)


def previous_token(patterns: Tensor) -> Tensor:
    """Each head's mean look at the token just before: [n_layer, batch, n_head, seq, seq] -> [n_layer, n_head]."""
    return patterns.diagonal(-1, -2, -1).mean((1, -1))


def induction(patterns: Tensor) -> Tensor:
    """How much each head, in the second half of `repeated` tokens, looks at the token *after* the earlier copy of the
    one it reads: [n_layer, batch, n_head, seq, seq] -> [n_layer, n_head] (Olsson et al. 2022, arXiv 2209.11895)."""
    length = patterns.shape[-1] // 2
    return patterns[..., length:, :].diagonal(1, -2, -1).mean((1, -1))


@contextmanager
def without_heads(model: Decoder, heads: Iterable[tuple[int, int]]) -> Iterator[None]:
    """Inside, these heads, (block, head) each, add nothing to what passes: what they write enters `o` as zeros."""
    size, hooks = model.config.head_dim, []

    def silence(head):
        def hook(_, inputs):
            z = inputs[0].clone()  # [batch, seq, n_head * head_dim]
            z[..., head * size : (head + 1) * size] = 0
            return (z, *inputs[1:])

        return hook

    try:
        for block, head in heads:
            hooks.append(model.blocks[block].attn.o.register_forward_pre_hook(silence(head)))
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def answers_by_block(model: Decoder, batch: Batch, answers: tuple[int, int]) -> Tensor:
    """The second answer's logit less the first's at the last real token, by the lens: [n_layer + 1, batch]."""
    hidden = look_inside(model, batch.input_ids).hidden  # padding on the right is seen by no real token
    last = hidden[:, torch.arange(len(batch.lengths)), batch.lengths - 1]  # [n_layer + 1, batch, n_embd]
    no, yes = model.logits(model.ln_f(last))[..., list(answers)].unbind(-1)
    return yes - no


def low_rank(delta: Tensor, rank: int) -> Tensor:
    """The matrix of at most this rank that is nearest to `delta` (Eckart and Young 1936): [d_out, d_in] -> the same."""
    u, s, v = torch.linalg.svd(delta, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank]


@contextmanager
def updates_of_rank(model: Decoder, rank: int) -> Iterator[None]:
    """Inside, every LoRA layer's update B A is the nearest matrix of at most this rank."""
    layers = [layer for layer in model.modules() if isinstance(layer, LoRALinear)]
    kept = [(layer.A.data, layer.B.data) for layer in layers]
    try:
        for layer in layers:
            u, s, v = torch.linalg.svd(layer.B.data @ layer.A.data, full_matrices=False)
            size = layer.A.shape[0]
            s = torch.where(torch.arange(size, device=s.device) < rank, s[:size], 0)
            layer.B.data, layer.A.data = u[:, :size] * s, v[:size]
        yield
    finally:
        for layer, (a, b) in zip(layers, kept, strict=True):
            layer.A.data, layer.B.data = a, b
