"""The work that both sides do, and how it is measured."""

import os
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cached_property, wraps
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import torch

from gpt2lib.common.machine import environment, wait
from gpt2lib.common.whole import write_table
from gpt2lib.data.batches import Encoded
from gpt2lib.model.base import random_model
from gpt2lib.model.config import Config

RANK, CLASSES = 8, 5


@dataclass(frozen=True)
class Work:
    """What both sides do: a model's shape, texts by their lengths alone (the tokens are random), and how to train.

    lengths: of the texts in tokens, as a task has them. steps: updates in one round of a training measurement. weights:
    a folder in the transformers layout; without it random weights are made.
    """

    config: Config
    lengths: tuple[int, ...]
    batch_size: int = 8
    steps: int = 8
    rounds: int = 5
    precision: str = "float32"
    seed: int = 0
    weights: str = ""

    @cached_property
    def folder(self) -> Path:
        """Weights of this shape, in the layout that both sides load."""
        if self.weights:
            return Path(self.weights)
        torch.manual_seed(self.seed)
        folder = Path(tempfile.mkdtemp())
        random_model(self.config).save_pretrained(folder)
        return folder

    @cached_property
    def examples(self) -> list[Encoded]:
        rng = random.Random(self.seed)
        vocabulary = range(self.config.vocab_size)
        return [Encoded(rng.choices(vocabulary, k=n), rng.randrange(CLASSES)) for n in self.lengths]

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def in_its_own_cache(measure: Callable) -> Callable:
    """What a measurement keeps of random weights is of no use to anybody: its cache goes when it ends."""

    @wraps(measure)
    def measured(*arguments, **options):
        with tempfile.TemporaryDirectory() as cache, patch.dict(os.environ, GPT2LIB_CACHE=cache):
            return measure(*arguments, **options)

    return measured


def in_turns(works: dict[str, Callable[[], object]], rounds: int, warm_up: bool = True) -> pd.DataFrame:
    """Seconds of each piece of work, one row a round, after a round that does not count (unless warm_up is False)."""
    rows = []
    for i in range(rounds + warm_up):
        row = {}
        for name, work in works.items():
            wait()
            began = time.perf_counter()
            work()
            wait()
            row[name] = time.perf_counter() - began
        if i >= warm_up:
            rows.append(row)
    return pd.DataFrame(rows)


def row(quantity: str, seconds: pd.DataFrame, ours: str, peer: str, per: float = 1.0, unit: str = "seconds") -> dict:
    """One row of the table: times if `unit` is seconds, else speeds, of `per` things done in each measurement."""
    speed = {name: (per / seconds[name] if unit != "seconds" else seconds[name]).median() for name in (ours, peer)}
    ratios = seconds[peer] / seconds[ours]
    return {
        "quantity": quantity,
        "ours": speed[ours],
        "peer": peer,
        "peer_value": speed[peer],
        "ratio": ratios.median(),
        "ratio_low": ratios.min(),
        "ratio_high": ratios.max(),
        "unit": unit,
    }


def keep(work: Work, task: str, rows: list[dict], folder: Path) -> None:
    """Write measurements into `folder`/benchmarks.csv beside the device, shapes, versions, revision and day; what it
    held of the same quantities, measured on the same work, goes."""
    now = environment()
    about = {"device": now["device"], "task": task, "n_layer": work.config.n_layer}
    about |= {"n_embd": work.config.n_embd, "batch_size": work.batch_size, "precision": work.precision}
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    when = {"versions": versions, "revision": now["revision"], "day": date.today().isoformat()}
    table = pd.DataFrame([about | when | row for row in rows])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "benchmarks.csv"
    if path.is_file():
        table = pd.concat([pd.read_csv(path, dtype={"revision": str}), table])  # it may be all digits
    same = [*about, "quantity", "peer"]
    table = table.drop_duplicates(same, keep="last")
    write_table(path, table, digits=6)
