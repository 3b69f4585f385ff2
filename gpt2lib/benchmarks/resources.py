"""Memory and start-up, in processes of their own, and the optimiser."""

import copy
import importlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from gpt2lib.adapters import LoRA
from gpt2lib.benchmarks.peer import their_steps
from gpt2lib.benchmarks.training import our_run, steps_of
from gpt2lib.benchmarks.work import RANK, Work, in_turns, row
from gpt2lib.common.machine import peak_memory_mb
from gpt2lib.model.base import load_model, shape_of
from gpt2lib.training.optimizer import AdamW

LONGEST = 512  # tokens of the texts that memory is measured on


def optimizer(work: Work) -> list[dict]:
    """A step of AdamW over all parameters of the model, against torch's foreach form."""
    model = load_model(work.folder).to(work.device)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    other = copy.deepcopy(model)
    for p, q in zip(other.parameters(), model.parameters(), strict=True):
        p.grad = q.grad.clone()
    works = {"ours": AdamW(model.parameters(), weight_decay=0.01).step}
    works["torch foreach"] = torch.optim.AdamW(other.parameters(), foreach=True).step
    return [row("AdamW step", in_turns(works, max(work.rounds, 9)), "ours", "torch foreach")]


def memory(work: Work) -> list[dict]:
    """Peak memory of a step of LoRA on the longest texts that the model takes, above what a process holds that has
    imported both libraries, in MB: ours against peft's, and with gradient checkpointing against without. The loading of
    the weights is left out of the peak, and so is memory that was freed and that the allocator keeps."""
    longest = min(LONGEST, work.config.n_positions)
    long = replace(work, lengths=(longest,) * work.batch_size, steps=1, weights=str(work.folder))
    sides = ("ours", "peft", "checkpointed")
    with ThreadPoolExecutor() as pool:  # at once: nothing is timed
        peak = dict(zip(sides, pool.map(partial(_memory_of, long), sides), strict=True))
    rows = []
    for quantity, ours, peer in (("LoRA", "ours", "peft"), ("LoRA, checkpointed", "checkpointed", "ours")):
        row = {"quantity": f"peak memory, {quantity}", "ours": peak[ours], "peer_value": peak[peer]}
        rows.append(row | {"peer": peer if peer == "peft" else "kept activations"})
        rows[-1] |= {"ratio": peak[peer] / peak[ours], "unit": f"MB, {longest} tokens a text"}
    return rows


def _memory_of(work: Work, side: str) -> float:
    arguments = {"side": side, "lengths": work.lengths, "weights": str(work.folder)}
    arguments |= {"batch_size": work.batch_size, "steps": work.steps, "precision": work.precision}
    environment = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # glibc: what is freed goes back at once
    return float(_python("-m", "gpt2lib.benchmarks.resources", json.dumps(arguments), **environment))


def start_up(rounds: int = 5) -> list[dict]:
    """Seconds to import gpt2lib, against torch alone, each in a fresh process."""
    works = {name: lambda n=name: _python("-c", f"import {n}") for name in ("gpt2lib", "torch")}
    return [row("import", in_turns(works, rounds), "gpt2lib", "torch")]


def _python(*arguments: str, **environment: str) -> str:
    settings = dict(capture_output=True, text=True, check=False, env=os.environ | environment)
    done = subprocess.run([sys.executable, *arguments], **settings)
    if done.returncode:
        raise RuntimeError(f"a measurement failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def _measure_memory(side: str, lengths: list, weights: str, **settings) -> float:
    work = Work(shape_of(weights), tuple(lengths), weights=weights, **settings)
    family = work.config.family
    for library in ("peft", f"transformers.models.{family}.modeling_{family}"):  # both sides hold the same libraries
        importlib.import_module(library)
    assert work.examples  # made before the measurement begins
    lora = LoRA(rank=RANK, targets=("q", "k", "v"))
    before = _peak_from_here()
    if side == "peft":
        steps = their_steps(work, lora)
    else:
        run = our_run(work, lora)
        run.model.body.gradient_checkpointing = side == "checkpointed"
        steps = steps_of(run, work.steps)
    _peak_from_here()
    steps()
    return _peak() - before


def _peak_from_here() -> float:
    """Forget the peak so far; what is held now, in MB."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak()


def _peak() -> float:
    """The most memory held since the last reset, in MB: of the GPU if there is one, else resident (Linux)."""
    if torch.cuda.is_available():
        return peak_memory_mb()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e6


if __name__ == "__main__":
    print(_measure_memory(**json.loads(sys.argv[1])))
