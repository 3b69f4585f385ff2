"""The frozen prefix: what the blocks below the first trained parameter make of each text, computed once and kept.

They give the same hidden states in every epoch, run, seed and method, so every step can start from them. They are kept
in float32 (float64 for a float64 model) in memory-mapped files in the cache folder, one for a model's blocks and a list
of texts, which the processes and runs of a study share. `Trainer`, `evaluate` and `predict` use it by themselves;
training only the last layer is the case in which the prefix is the whole body.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn
from tqdm.auto import tqdm

from gpt2lib.common.digest import digest_kept, digest_of
from gpt2lib.common.machine import autocast, cache_folder
from gpt2lib.common.whole import write_whole
from gpt2lib.data.batches import Batch, Encoded, sorted_batches
from gpt2lib.model.generate import evaluating

FORMAT = 1  # of the files; part of their names
ABANDONED = 3600  # seconds after which a file that nobody writes to any more was left by a process that was killed
SPARE = 2e9  # bytes of the disk that are left alone
ABOVE = ("ln_f.", "output_weight")  # parameters of a body that stand above its blocks


def frozen_blocks(body) -> int:
    """How many blocks lie below the first trained parameter: 0 if an embedding is trained, n_layer if nothing is."""
    trained = [name for name, p in body.named_parameters() if p.requires_grad and not name.startswith(ABOVE)]
    if any(not name.startswith("blocks.") for name in trained):
        return 0
    return min((int(name.split(".")[1]) for name in trained), default=len(body.blocks))


def below(body, first: int) -> list[nn.Module]:
    """The modules whose work the prefix is: the embeddings and the blocks below number `first`; none for 0."""
    if first == 0:
        return []
    return [m for name, m in body.named_children() if name not in ("blocks", "ln_f")] + list(body.blocks[:first])


def with_prefix(model, examples: Sequence[Encoded], precision: str = "float32", quiet: bool = False) -> list[Encoded]:
    """The examples with the hidden states that training `model` starts from, from the cache or computed into it now.

    model: an objective (see `objectives`). Where no block is frozen below all that is trained, hooks watch or change
    one, or the states do not fit (GPT2LIB_PREFIX_GB, 20 by default, for all kept states together; 0 keeps none), the
    examples come back as they are.
    """
    first = frozen_blocks(model.body)
    if first == 0 or not examples or limit() == 0 or _watched(model.body, first):
        return list(examples)
    one = model.reads_last_token and first == len(model.body.blocks)
    rows = [1 if one else len(e.ids) for e in examples]
    shape = (sum(rows), model.body.config.n_embd)
    dtype = np.dtype(np.float64 if model.body.wte.weight.dtype == torch.float64 else np.float32)
    path = cache_folder() / "prefix" / f"{_key(model.body, first, one, examples, precision)}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # another process may be computing the same: then it is there afterwards
        states = _read(path, shape, dtype)
        if states is None:
            if reason := _no_room(path.parent, dtype.itemsize * shape[0] * shape[1]):
                tqdm.write(f"{reason}: the {first} frozen blocks run in every step", file=sys.stderr)
                return list(examples)

            def fill(partial: Path) -> None:
                file = np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape)
                _compute(file, model, examples, first, one, precision, quiet)

            try:
                write_whole(path, fill)
            except OSError as error:
                tqdm.write(f"{path}: {error.strerror}: the {first} frozen blocks run in every step", file=sys.stderr)
                return list(examples)
            states = _read(path, shape, dtype)
    ends = np.cumsum(rows)
    parts = (states[end - count : end] for end, count in zip(ends, rows, strict=True))
    return [replace(example, hidden=part, first=first) for example, part in zip(examples, parts, strict=True)]


def _watched(body, first: int) -> bool:
    """Whether torch's hooks sit on a block below `first`: they may change what no key tells, and want to be called."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in _modules(body, first))


def _modules(body, first: int) -> list[nn.Module]:
    """All modules in those of `below`."""
    return [m for part in below(body, first) for m in part.modules()]


def limit() -> float:
    """Bytes that the kept states may take together."""
    text = os.environ.get("GPT2LIB_PREFIX_GB", "20")
    try:
        return float(text) * 1e9
    except ValueError:
        raise ValueError(f"GPT2LIB_PREFIX_GB must be a number of gigabytes, not {text!r}") from None


def body_digest(body, first: int) -> str:
    """A hash of all weights below block `first`, remembered while they stay what they are."""
    modules = {id(m) for m in _modules(body, first)}
    owned = [
        (f"{name}.{key}", value)
        for name, module in body.named_modules()
        if id(module) in modules
        for key, value in (*module._parameters.items(), *module._buffers.items())
        if value is not None
    ]
    return digest_kept(body, owned)


def _key(body, first: int, one: bool, examples: Sequence[Encoded], precision: str) -> str:
    lengths = torch.tensor([len(e.ids) for e in examples])
    ids = torch.from_numpy(np.fromiter((token for e in examples for token in e.ids), dtype=np.int64))
    shape = replace(body.config, n_layer=first)  # how many blocks stand above changes nothing
    kind = f"{FORMAT}/{type(body).__name__}/{shape}/{one}/{precision}/{body_digest(body, first)}"
    if any(hasattr(m, "base") for m in _modules(body, first)):  # an adapter's that is frozen, too
        kind += f"/{body.adapter}"  # its scale and graph are no weights
    return digest_of([(kind, lengths), ("ids", ids)])


def _read(path: Path, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray | None:
    """The kept states; None where they are missing or damaged."""
    try:
        states = np.load(path, mmap_mode="r")
        now = time.time_ns()  # the least recently used are the first to go, and a file system's own clock is coarse
        os.utime(path, ns=(now, now))
    except (OSError, ValueError, EOFError):
        return None
    return states.view(np.ndarray) if states.shape == shape and states.dtype == dtype else None


def _no_room(folder: Path, size: int) -> str:
    """Why `size` more bytes cannot be kept, after the least recently used files have made way; "" if they can."""
    if size > limit():
        return f"the hidden states of the frozen blocks take {size / 1e9:.1f} GB, more than GPT2LIB_PREFIX_GB allows"
    files = sorted(_files(folder))
    total = sum(of_file for _, _, of_file in files)
    for _, path, of_file in files:
        if total + size <= limit() and shutil.disk_usage(folder).free >= size + SPARE:
            break
        total -= of_file
        path.unlink(missing_ok=True)  # a process that still reads it keeps it until it ends
    if (free := shutil.disk_usage(folder).free) < size + SPARE:
        return f"the hidden states of the frozen blocks take {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
    return ""


def _files(folder: Path) -> Iterator[tuple[float, Path, int]]:
    """When each file of kept states was last used, its path and its size. Other processes take some away meanwhile."""
    for path in folder.glob("*.npy"):
        try:
            about = path.stat()
        except FileNotFoundError:
            continue
        if ".partial" not in path.name or time.time() - about.st_mtime > ABANDONED:
            yield about.st_mtime, path, about.st_size


@torch.no_grad()
def _compute(states: np.memmap, model, examples, first: int, one: bool, precision: str, quiet: bool) -> None:
    """Fill a file with the states of all examples, one after the other."""
    body, device = model.body, model.body.wte.weight.device
    rows = [1 if one else len(e.ids) for e in examples]
    starts = np.cumsum(rows) - rows
    batches = sorted_batches([len(e.ids) for e in examples], batch_size=16)
    bar = tqdm(batches, desc=f"{first} frozen blocks, once", unit="batch", leave=False, delay=2, disable=quiet)
    with evaluating(model):
        for indices in bar:
            batch = Batch.of([replace(examples[i], hidden=None, first=0) for i in indices], device)
            with autocast(device, precision):
                read = batch.lengths - 1 if one else None
                hidden: Tensor = body(batch.input_ids, read=read, end=first)  # [batch, seq or 1, n_embd]
            hidden = hidden.to("cpu", torch.promote_types(hidden.dtype, torch.float32))  # numpy has no bf16
            for i, of_one in zip(indices, hidden.numpy(), strict=True):
                states[starts[i] : starts[i] + rows[i]] = of_one[: rows[i]]
    states.flush()
