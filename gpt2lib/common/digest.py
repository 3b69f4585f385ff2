"""Hashes that tell whether two models, or two lists of texts, are the same."""

import hashlib
from collections.abc import Iterable, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_kept: WeakKeyDictionary[nn.Module, dict] = WeakKeyDictionary()  # model -> precision -> state, digest


def digest_of(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """A hash over names, shapes and every bit of the values; a third of a second for 100 million float32 numbers."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def digest_kept(model: nn.Module, tensors: Sequence[tuple[str, Tensor]], rounded: torch.dtype | None = None) -> str:
    """`digest_of` of a model's weights, rounded to a precision or as they are, remembered until one of them changes.

    torch counts what is written into a tensor in place, and a tensor that takes another's place lies elsewhere; what is
    written through `.data`, which it does not count, changes sums of the bits.
    """
    now = tuple((name, t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype, _bits(t)) for name, t in tensors)
    kept = _kept.setdefault(model, {})
    if rounded not in kept or kept[rounded][0] != now:
        kept[rounded] = now, digest_of((name, t.to(rounded or t.dtype)) for name, t in tensors)
    return kept[rounded][1]


def _bits(tensor: Tensor) -> tuple[int, int]:
    """The sums of a tensor's rows and of its columns, read as integers that overflow, each summed in turn with its
    place as its weight, so that exchanged values count: a fifth of a hash's time."""
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    numbers = torch.atleast_2d(tensor.detach().contiguous().view(integers)).flatten(0, -2)  # [rows, columns]
    sums = (numbers.sum(dim, dtype=integers) for dim in (0, 1))
    return tuple(int((sum_ * torch.arange(1, len(sum_) + 1, device=sum_.device)).sum()) for sum_ in sums)
