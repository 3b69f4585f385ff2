"""What to look at when a model does not learn: the instruments of notebook 04, each a few lines."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from gpt2lib.training.objectives import trained_parameters
from gpt2lib.training.optimizer import AdamW


def losses_of(model: nn.Module, loss: Callable, batches: Iterable[Tensor], lr: float) -> list[float]:
    """Train on one batch after another at a constant rate; the loss of each. loss: (model, batch) -> a number."""
    optimizer, losses = AdamW(model.parameters(), lr=lr), []
    for batch in batches:
        value = loss(model, batch)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.item())
        if not math.isfinite(losses[-1]):
            break
    return losses


def gradient_norms(model: nn.Module, value: Tensor) -> dict[str, float]:
    """The norm of each parameter's gradient of a loss, by name; 0 where none arrives."""
    trained = trained_parameters(model)
    gradients = torch.autograd.grad(value, list(trained.values()), allow_unused=True)
    return {name: 0.0 if g is None else g.norm().item() for name, g in zip(trained, gradients, strict=True)}


@torch.no_grad()
def leak(function: Callable[[Tensor], Tensor], x: Tensor) -> list[float]:
    """By position t: how much outputs *before* t change, at most, when the input at t does. All 0 if it is causal.

    x: [batch, seq, features] -> [batch, seq, anything].
    """
    plain, changes = function(x), []
    for t in range(1, x.shape[1]):
        changed = x.clone()
        changed[:, t] += 1
        changes.append((function(changed) - plain)[:, :t].abs().max().item())
    return changes


def chain(rows: int, length: int, vocab_size: int = 50, noise: float = 0.1, seed: int = 0) -> Tensor:
    """A made-up, easy language: token x is followed by 3 x + 1, but for a share of random ones: [rows, length]"""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocab_size, (rows, length), generator=generator)
    surprise = torch.rand(rows, length, generator=generator) < noise
    for t in range(1, length):
        ids[:, t] = torch.where(surprise[:, t], ids[:, t], (3 * ids[:, t - 1] + 1) % vocab_size)
    return ids
