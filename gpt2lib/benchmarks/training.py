"""Training: examples a second against transformers and peft, what each change buys, what each adapter costs, growth."""

import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from unittest.mock import patch

import pandas as pd
import torch

from gpt2lib.adapters import LoRA, Spec, attach
from gpt2lib.benchmarks.peer import Peer, their_steps
from gpt2lib.benchmarks.work import CLASSES, RANK, Work, in_its_own_cache, in_turns, row
from gpt2lib.common.machine import wait
from gpt2lib.data.batches import Batch, Encoded
from gpt2lib.model.attention import rows_at
from gpt2lib.model.base import load_model
from gpt2lib.model.linear import matmul_peak, onednn_is_faster
from gpt2lib.tasks.method import Full, Trainable
from gpt2lib.training import Trainer, TrainingSettings, fit
from gpt2lib.training.objectives import Classifier, LinearHead


def our_run(work: Work, method: Trainable, classifier: type[Classifier] = Classifier) -> Trainer:
    """The loop of `fit`, of which a measurement makes a few steps."""
    body = load_model(work.folder)
    method.apply(body)
    model = classifier(body, LinearHead(work.config.n_embd, CLASSES)).to(work.device)
    settings = TrainingSettings(
        epochs=10_000, batch_size=work.batch_size, lr=1e-4, precision=work.precision, seed=work.seed
    )
    return Trainer(model, work.examples, work.examples[:1], settings)


def steps_of(run: Trainer, steps: int) -> Callable[[], None]:
    return lambda: [run.step() for _ in range(steps)]


def steps_at_random(run: Trainer, steps: int) -> Callable[[], None]:
    """As if batches were drawn whatever their lengths."""
    run.lengths = [1] * len(run.lengths)
    return steps_of(run, steps)


def training(work: Work, methods: Sequence[str] = ("LoRA", "full")) -> list[dict]:
    """LoRA on query, key and value, and full fine-tuning: examples a second. In bf16 ours is held against the peer's
    float32, too, which is what a user of it has where nobody asks for bf16."""
    lora, examples = LoRA(rank=RANK, targets=("q", "k", "v")), work.batch_size * work.steps
    rows = []
    for name, ours, theirs, peer in (("LoRA", lora, lora, "peft"), ("full", Full(), None, "transformers")):
        if name not in methods:
            continue
        works = {"ours": steps_of(our_run(work, ours), work.steps), peer: their_steps(work, theirs)}
        if work.precision != "float32":
            plain = replace(work, precision="float32", weights=str(work.folder))
            works[f"{peer} in float32"] = their_steps(plain, theirs)
        seconds = in_turns(works, work.rounds)
        for other in list(works)[1:]:
            rows.append(row(f"{name} training", seconds, "ours", other, examples, "examples/s"))
    return rows


def dev_curves(
    work: Work, train: list[Encoded], dev: list[Encoded], epochs: int, lr: float, seeds: tuple[int, ...] = (0,)
) -> pd.DataFrame:
    """LoRA from the same weights, on the same labelled examples, at the same learning rates: dev accuracy after each
    epoch and the seconds of training until then, of both sides (columns side, seed, epoch, seconds, accuracy)."""
    return pd.concat(
        [_dev_curves(replace(work, seed=seed), train, dev, epochs, lr) for seed in seeds], ignore_index=True
    )


def _dev_curves(work: Work, train: list[Encoded], dev: list[Encoded], epochs: int, lr: float) -> pd.DataFrame:
    lora = LoRA(rank=RANK, targets=("q", "k", "v"))
    settings = TrainingSettings(
        epochs=epochs, batch_size=work.batch_size, lr=lr, precision=work.precision, seed=work.seed
    )
    torch.manual_seed(work.seed)
    body = attach(load_model(work.folder), lora)
    progress = fit(Classifier(body, LinearHead(work.config.n_embd, CLASSES)), train, dev, settings, quiet=True)
    rows = [{"side": "ours", **{key: row[key] for key in ("epoch", "seconds", "accuracy")}} for row in progress.history]

    peer, rng = Peer(work, lora), random.Random(work.seed)
    seconds, step = 0.0, 0
    for epoch in range(epochs):
        order = rng.sample(train, len(train))
        began = time.perf_counter()
        for i in range(0, len(order), work.batch_size):
            peer.step(order[i : i + work.batch_size], settings.lr_at(step, progress.steps))
            step += 1
        seconds += time.perf_counter() - began
        rows.append({"side": "peft", "epoch": epoch + 1, "seconds": seconds, "accuracy": peer.accuracy(dev)})
    return pd.DataFrame(rows).assign(seed=work.seed)


class _EveryPosition(Classifier):
    """As if the last block had to compute all positions."""

    def features(self, batch: Batch) -> torch.Tensor:
        return rows_at(self.body(batch.input_ids), batch.lengths - 1)[:, 0]


def without_prefix(work: Work, method: Trainable) -> Trainer:
    """As if nothing were kept of the frozen blocks."""
    with patch.dict(os.environ, GPT2LIB_PREFIX_GB="0"):
        return our_run(work, method)


def _by_mkl(ours: Callable[[], None]) -> Callable[[], None]:
    """The same with the products that PyTorch would take by itself."""

    def run() -> None:
        with patch("gpt2lib.model.linear.onednn_is_faster", return_value=False):
            ours()

    return run


@in_its_own_cache
def waterfall(work: Work, layers: tuple[int, int] | None = None) -> pd.DataFrame:
    """LoRA training in examples a second, one change at a time from transformers + peft to `fit`; all in turns.

    layers: the last blocks, (first, end), to which the last two changes confine the adapters.
    """
    lora = LoRA(rank=RANK, targets=("q", "k", "v"))
    ours = steps_at_random(our_run(work, lora, _EveryPosition), work.steps)
    works = {"transformers + peft": their_steps(work, lora), "our model, no mask": ours}
    if work.device.type == "cpu" and work.precision == "float32" and onednn_is_faster():
        works |= {"our model, no mask": _by_mkl(ours), "products by oneDNN": ours}
    works["batches by length"] = steps_of(our_run(work, lora, _EveryPosition), work.steps)
    works["last block for one token"] = steps_of(our_run(work, lora), work.steps)
    if layers is not None:
        last = replace(lora, layers=layers)
        works["adapters on the last blocks only"] = steps_of(without_prefix(work, last), work.steps)
        works["what lies below computed once"] = steps_of(our_run(work, last), work.steps)
    if work.precision == "bf16":
        again = our_run(work, lora)
        again.release()
        held = works["last block for one token"]
        works["last block for one token"] = steps_of(again, work.steps)
        works["frozen weights kept in bf16"] = held
    speeds = work.batch_size * work.steps / in_turns(works, work.rounds)
    return pd.DataFrame({"examples/s": speeds.median(), "lowest": speeds.min(), "highest": speeds.max()})


@in_its_own_cache
def last_linear(work: Work) -> list[dict]:
    """An epoch of last-linear training with the body against one with its features kept."""
    body = load_model(work.folder).requires_grad_(False)
    model = Classifier(body, LinearHead(work.config.n_embd, CLASSES)).to(work.device)
    examples = work.examples[: work.batch_size * work.steps]
    settings = TrainingSettings(epochs=10_000, batch_size=work.batch_size, precision=work.precision)

    def start() -> Trainer:
        return Trainer(model, examples, examples[:1], settings)

    @in_its_own_cache
    def first_epoch() -> None:
        """The body's work, which nothing has kept."""
        steps_of(start(), work.steps)()

    works = {"kept features": steps_of(start(), work.steps), "first epoch": first_epoch}
    seconds = in_turns(works, work.rounds)
    return [row("last linear, an epoch", seconds, "kept features", "first epoch")]


@in_its_own_cache
def frozen_prefix(work: Work, layers: tuple[int, int], epochs: int = 3, size: int = 512) -> list[dict]:
    """LoRA on some of the last blocks against peft's on the same: an epoch after the first; and `epochs` of `size`
    texts that were not seen before, with what has to be computed for them. peft's time there is that of fewer steps, by
    their number: each is the same work."""
    targets = ("q", "k", "v") if work.config.family == "gpt2" else ("q", "v")
    lora, per_round = LoRA(rank=RANK, targets=targets, layers=layers), work.batch_size * work.steps
    theirs, name = their_steps(work, lora), f"LoRA on blocks {layers[0]} to {layers[1] - 1} of {work.config.n_layer}"
    size = min(size, len(work.examples) // (work.rounds + 2))
    run = our_run(replace(work, lengths=work.lengths[:size], weights=str(work.folder)), lora)
    later = in_turns({"ours": steps_of(run, work.steps), "peft": theirs}, work.rounds)
    unseen = iter(range(size, len(work.examples), size))

    def whole() -> None:
        examples = work.examples[(first := next(unseen)) : first + size]
        again = Trainer(run.model, examples, examples[:1], replace(run.settings, epochs=epochs))
        while not again.stopped:
            again.step()

    whole_runs = in_turns({"ours": whole, "peft": theirs}, work.rounds)
    whole_runs["peft"] *= epochs * size / per_round
    return [
        row(f"{name}, an epoch after the first", later, "ours", "peft", per_round, "examples/s"),
        row(f"{name}, {epochs} epochs", whole_runs, "ours", "peft", epochs * size, "examples/s"),
    ]


@in_its_own_cache
def adapter_costs(work: Work, specs: dict[str, tuple[Spec, LoRA]]) -> pd.DataFrame:
    """Training with each adapter over training with a LoRA: time, and trained parameters.

    specs: name -> (adapter, LoRA to compare with). Texts are of one length, the median, so that every step is the same
    work. A round is a whole period of whatever an adapter does every so many steps (alpha-LoRA's own batches every 10);
    fitting a spline's grid, every 200 steps, is left out.
    """
    steps = 10
    length = int(statistics.median(work.lengths))
    flat = replace(work, lengths=(length,) * max(512, work.batch_size * steps), weights=str(work.folder))
    rows = {}
    for name, (spec, lora) in specs.items():  # two models at a time, for memory's sake
        ours, theirs = our_run(flat, spec), our_run(flat, lora)
        works = {name: steps_of(ours, steps), "LoRA": steps_of(theirs, steps)}
        seconds = in_turns(works, max(work.rounds, 5))
        ratio = seconds[name] / seconds["LoRA"]
        trained, of_lora = (sum(p.numel() for p in run.trained.values()) for run in (ours, theirs))
        rows[name] = {"targets of LoRA": " ".join(lora.targets), "trained": trained, "LoRA's": of_lora}
        rows[name] |= {"time over LoRA's": ratio.median(), "lowest": ratio.min(), "highest": ratio.max()}
    return pd.DataFrame(rows).T


def growth(work: Work, sizes: tuple[int, ...]) -> pd.DataFrame:
    """Seconds for each thousand tokens of a LoRA epoch over more and more examples of the same lengths: a flat line."""
    rng = random.Random(work.seed)
    rows = []
    for size in sizes:
        grown = Work(work.config, tuple(rng.choices(work.lengths, k=size)), work.batch_size)
        model = Classifier(attach(load_model(work.folder), LoRA()), LinearHead(work.config.n_embd, CLASSES))
        settings = TrainingSettings(epochs=1, batch_size=work.batch_size, lr=1e-4)
        began = time.perf_counter()
        run = Trainer(model, grown.examples, grown.examples[:1], settings)
        while not run.stopped:
            run.step()
        seconds = time.perf_counter() - began
        progress = run.progress
        rows.append(
            {"examples": size, "tokens": progress.tokens, "ms a thousand tokens": 1e6 * seconds / progress.tokens}
        )
        rows[-1] |= {"padding": 1 - progress.tokens / progress.padded_tokens}
    return pd.DataFrame(rows)


def utilisation(work: Work) -> dict[str, float]:
    """Model FLOPs of full and LoRA training a second, and their share of the fastest matrix product measured here."""
    peak = matmul_peak(work.device, torch.bfloat16 if work.precision == "bf16" else torch.float32)
    matrices = work.config.n_layer * work.config.block_parameters
    found = {"peak": peak}
    # forward 2 N, gradients of activations 2 N, of weights 2 N (LoRA has none of the last): operations a token
    for name, method, passes in (("full", Full(), 6), ("LoRA", LoRA(rank=RANK), 4)):
        run = our_run(work, method)
        steps_of(run, work.steps)()
        before, began = run.progress.tokens, time.perf_counter()
        steps_of(run, work.steps)()
        wait()
        tokens = run.progress.tokens - before
        found[name] = passes * matrices * tokens / (time.perf_counter() - began)
        found[f"{name}, share of peak"] = found[name] / peak
    return found
