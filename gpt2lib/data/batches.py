"""From token ids to batches: padded on the right, of similar length, in a seeded order."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class Encoded:
    """One example as the model reads it.

    ids: its tokens. label: its class, or None. start: the first token that counts in a language-model loss. task: which
    of several tasks it belongs to. hidden: what the blocks below number `first` make of it, float32 [len(ids), n_embd]
    (or [1, n_embd], of its last token alone), once that is computed; see `training.prefix`.
    """

    ids: Sequence[int]
    label: int | None = None
    start: int = 1
    task: int = 0
    hidden: np.ndarray | None = field(default=None, repr=False, compare=False)
    first: int = field(default=0, repr=False, compare=False)


@dataclass(frozen=True)
class Batch:
    """Examples padded on the right, so that a causal model needs no mask.

    input_ids: [batch, seq]. lengths, starts, tasks: [batch]. labels: [batch], -1 where there is none. hidden: where the
    model goes on from, [batch, seq, n_embd] before block `first` (see `Encoded`), or None for the whole way.
    """

    input_ids: Tensor
    lengths: Tensor
    starts: Tensor
    labels: Tensor
    tasks: Tensor
    hidden: Tensor | None = None
    first: int = 0

    @classmethod
    def of(cls, examples: Sequence[Encoded], device="cpu") -> "Batch":
        lengths = torch.tensor([len(e.ids) for e in examples])
        ids = [torch.from_numpy(np.array(e.ids, dtype=np.int64)) for e in examples]
        input_ids = pad_sequence(ids, batch_first=True)
        starts = torch.tensor([e.start for e in examples])
        labels = torch.tensor([-1 if e.label is None else e.label for e in examples])
        tasks = torch.tensor([e.task for e in examples])
        tensors = [input_ids, lengths, starts, labels, tasks]
        if len({(e.hidden is None, e.first) for e in examples}) > 1:
            raise ValueError("a batch goes on from the same block in all its examples; these have different ones")
        if examples[0].hidden is not None:
            tensors.append(pad_sequence([torch.tensor(e.hidden) for e in examples], batch_first=True))
        return cls(*(t.to(device, non_blocking=True) for t in tensors), first=examples[0].first)

    @property
    def real(self) -> Tensor:
        """True where a token is no padding: [batch, seq]"""
        return torch.arange(self.input_ids.shape[1], device=self.lengths.device) < self.lengths[:, None]

    def select(self, rows: Tensor) -> "Batch":
        """Some of the rows, without the padding that the others needed. rows: indices."""
        lengths = self.lengths[rows]
        longest = int(lengths.max())
        hidden = None if self.hidden is None else self.hidden[rows, :longest]
        part = (t[rows] for t in (self.starts, self.labels, self.tasks))
        return Batch(self.input_ids[rows, :longest], lengths, *part, hidden, self.first)


def bucketed_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The batches of one epoch as lists of indices: random, but of similar length, in random order.

    Every index occurs once; the same seed and epoch give the same batches. Sorting inside pools of 50 batches keeps
    the padding low and still mixes the examples.
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    pool = 50 * batch_size
    order = [i for at in range(0, len(order), pool) for i in sorted(order[at : at + pool], key=lambda i: lengths[i])]
    batches = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    rng.shuffle(batches)
    return batches


def sorted_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches for evaluation, longest first, with next to no padding."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
