"""The training loop: `fit` trains what requires gradients, evaluates, checkpoints and resumes; `evaluate` measures.

One step is a function of the weights, the optimiser's state, the seed and the step's number alone: the order of the data
and the random numbers of dropout are derived from (seed, step), not carried along. So a run that was killed goes on
from its last checkpoint to the same bits (on a CPU), and several processes see the batches that one would.
"""

import hashlib
import json
import os
import resource
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from tqdm.auto import tqdm

from gpt2lib.encoding import Batch, Encoded, bucketed_batches, sorted_batches
from gpt2lib.optimizer import AdamW


@dataclass(frozen=True)
class Training:
    """How to train. Raises ValueError for a setting out of range.

    batch_size: examples per update, over all processes; accumulate: the parts an update's batch is split into.
    lr rises linearly over the first `warmup` fraction of the steps and falls linearly to 0 at the end.
    patience: epochs without a better dev metric after which training stops, or None.
    eval_every, max_steps: in steps; None means once an epoch, and all epochs.
    precision: "float32", or "bf16" for autocast (weights and optimiser stay in float32).
    """

    epochs: int = 3
    batch_size: int = 16
    lr: float = 1e-3
    weight_decay: float = 0.0
    warmup: float = 0.1
    max_grad_norm: float = 1.0
    accumulate: int = 1
    precision: str = "float32"
    patience: int | None = None
    eval_every: int | None = None
    max_steps: int | None = None
    seed: int = 0

    def __post_init__(self):
        for name in ("epochs", "batch_size", "accumulate"):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, not {value!r}")
        for name in ("patience", "eval_every", "max_steps"):
            if (value := getattr(self, name)) is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be None or an integer of at least 1, not {value!r}")
        if not self.lr > 0 or not self.weight_decay >= 0 or not self.max_grad_norm > 0 or not 0 <= self.warmup <= 1:
            raise ValueError(
                f"lr={self.lr}, weight_decay={self.weight_decay}, max_grad_norm={self.max_grad_norm}, "
                f"warmup={self.warmup}: need lr > 0, weight_decay >= 0, max_grad_norm > 0, 0 <= warmup <= 1"
            )
        if self.precision not in ("float32", "bf16"):
            raise ValueError(f"precision must be 'float32' or 'bf16', not {self.precision!r}")

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of step 0, 1, ... of `steps`."""
        rise = max(1, round(self.warmup * steps))
        return self.lr * min((step + 1) / rise, (steps - step) / max(1, steps - rise + 1), 1.0)


@dataclass
class Progress:
    """What a run has done so far; all of it is in the checkpoint, and at the end it is what `fit` returns.

    history: one row per evaluation. best: the best row. seconds and seconds_evaluating: training, evaluation.
    """

    step: int = 0
    steps: int = 0
    examples: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    seconds: float = 0.0
    seconds_evaluating: float = 0.0
    peak_memory_mb: float = 0.0
    stale: int = 0
    best: dict = field(default_factory=dict)
    history: list = field(default_factory=list)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


def trained_parameters(model) -> dict[str, torch.nn.Parameter]:
    """The parameters that require a gradient, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def fit(
    model,
    train: list[Encoded],
    dev: list[Encoded],
    settings: Training = Training(),
    folder: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
    quiet: bool = False,
) -> Progress:
    """Train the parameters of `model` that require gradients, and leave it with those that were best on dev.

    model: a `tasks.Classifier` or `tasks.LanguageModel`, whose forward gives the summed loss of a batch. folder: where
    checkpoint.pt and progress.json are kept; a second call with the same folder and settings goes on where the first
    one stopped. Under `accelerate launch` every process takes its share of each batch.
    Raises ValueError for empty data, nothing to train, or a checkpoint that other settings wrote; a loss that is not
    finite ends the run with FloatingPointError.
    """
    from accelerate import Accelerator  # two seconds of imports that a user of the model alone need not pay

    if not train or not dev:
        raise ValueError(f"fit needs examples: {len(train)} to train on, {len(dev)} to evaluate on")
    trained = trained_parameters(model)
    if not trained:
        raise ValueError("no parameter of the model requires a gradient; attach an adapter or unfreeze something")

    accelerator = Accelerator()
    wrapped = accelerator.prepare(model)
    optimizer = AdamW(trained.values(), lr=settings.lr, weight_decay=settings.weight_decay)
    lengths = [len(example.ids) for example in train]
    per_epoch = -(-len(train) // settings.batch_size)
    steps = min(settings.epochs * per_epoch, settings.max_steps or settings.epochs * per_epoch)
    eval_every = settings.eval_every or per_epoch
    checkpoint = Checkpoint(folder, _fingerprint(settings, trained, train), accelerator.is_main_process)
    progress = Progress(steps=steps)
    best = {}
    if (state := checkpoint.load()) is not None:
        progress = Progress(**state["progress"])
        best = state["best"]
        optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            for name, p in trained.items():
                p.copy_(state["trained"][name])

    def save() -> None:
        now = {name: p.detach() for name, p in trained.items()}
        checkpoint.save(progress=asdict(progress), best=best, optimizer=optimizer.state_dict(), trained=now)

    bar = tqdm(total=steps, initial=progress.step, unit="step", disable=quiet or not accelerator.is_main_process)
    saved = written = time.monotonic()
    batches, batches_epoch = [], -1
    stop = progress.step >= steps or (settings.patience is not None and progress.stale >= settings.patience)
    while not stop:
        began = time.monotonic()
        epoch, position = divmod(progress.step, per_epoch)
        if epoch != batches_epoch:
            batches, batches_epoch = bucketed_batches(lengths, settings.batch_size, settings.seed, epoch), epoch
        torch.manual_seed(_derived_seed(settings.seed, progress.step, accelerator.process_index))
        wrapped.train()
        for group in optimizer.param_groups:
            group["lr"] = settings.lr_at(progress.step, steps)
        chosen = [train[i] for i in batches[position]]
        loss = _accumulate_gradients(accelerator, wrapped, chosen, settings)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"loss is {loss.item()} at step {progress.step + 1} of {steps}; lower lr={settings.lr}"
            )
        accelerator.clip_grad_norm_(trained.values(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()

        progress.step += 1
        progress.examples += len(chosen)
        progress.tokens += sum(len(e.ids) for e in chosen)
        progress.padded_tokens += len(chosen) * max(len(e.ids) for e in chosen)
        progress.seconds += time.monotonic() - began
        progress.peak_memory_mb = max(progress.peak_memory_mb, peak_memory_mb())
        bar.update()

        if progress.step % eval_every == 0 or progress.step == steps:
            began = time.monotonic()
            metrics, _ = evaluate(model, dev, settings.batch_size, precision=settings.precision)
            progress.seconds_evaluating += time.monotonic() - began
            row = {"step": progress.step, "epoch": progress.step / per_epoch, "lr": optimizer.param_groups[0]["lr"]}
            row |= {"train_loss": loss.item(), "seconds": progress.seconds, "tokens": progress.tokens} | metrics
            progress.history.append(row)
            better = model.sign * row[model.metric] > model.sign * progress.best.get(
                model.metric, -model.sign * float("inf")
            )
            progress.stale = 0 if better else progress.stale + 1
            if better:
                progress.best = row
                best = {name: p.detach().clone() for name, p in trained.items()}
            bar.set_postfix({model.metric: f"{row[model.metric]:.4g}"})
            stop = settings.patience is not None and progress.stale >= settings.patience
        stop = stop or progress.step == steps
        now = time.monotonic()
        if stop or now - saved > checkpoint_seconds:
            save()
            saved = now
        if stop or now - written > 1:
            checkpoint.report(progress, loss.item())
            written = now
    bar.close()
    with torch.no_grad():
        for name, p in trained.items():
            p.copy_(best[name])
    model.eval()
    return progress


def _accumulate_gradients(accelerator, wrapped, chosen: list[Encoded], settings: Training) -> torch.Tensor:
    """Gradients of the mean loss over one update's batch, and that loss, whatever the number of parts and processes."""
    rank, world = accelerator.process_index, accelerator.num_processes
    parts = settings.accumulate * world
    total = sum(accelerator.unwrap_model(wrapped).weight(example) for example in chosen)
    mean = torch.zeros((), device=accelerator.device)
    for i in range(settings.accumulate):
        mine = chosen[i * world + rank :: parts]
        # every process must take part in every synchronisation, if need be with an example that counts nothing
        batch = Batch.of(mine or chosen[:1], accelerator.device)
        last = i == settings.accumulate - 1
        with _no_sync(accelerator, wrapped, enabled=not last), autocast(accelerator.device, settings.precision):
            loss = wrapped(batch) * (bool(mine) / total)
            accelerator.backward(loss * world)  # the processes' gradients are averaged
        mean += loss.detach()
    return accelerator.reduce(mean, "sum")


def evaluate(model, examples: list[Encoded], batch_size: int = 16, precision: str = "float32") -> tuple[dict, list]:
    """Metrics of `model` on labelled examples, and its prediction for each of them in their order.

    Under `accelerate launch` every process measures its share, and all return the whole.
    """
    predictions = predict(model, examples, batch_size, precision)
    return model.metrics(predictions, examples), predictions


@torch.no_grad()
def predict(model, examples: list[Encoded], batch_size: int = 16, precision: str = "float32") -> list:
    """The model's prediction for each example, labelled or not, in their order."""
    from accelerate import PartialState
    from accelerate.utils import gather_object

    state = PartialState()
    model.eval()
    device = next(model.parameters()).device
    batches = sorted_batches([len(e.ids) for e in examples], batch_size)
    outputs = []
    for indices in batches[state.process_index :: state.num_processes]:
        with autocast(device, precision):
            predicted = model.predict(Batch.of([examples[i] for i in indices], device))
        outputs += zip(indices, predicted, strict=True)
    return [prediction for _, prediction in sorted(gather_object(outputs), key=lambda output: output[0])]


class Checkpoint:
    """checkpoint.pt in a folder, replaced in one step, and progress.json beside it; nothing at all without a folder."""

    def __init__(self, folder: str | Path | None, fingerprint: str, writes: bool):
        self.folder = None if folder is None else Path(folder)
        self.fingerprint = fingerprint
        self.writes = writes and folder is not None

    def load(self) -> dict | None:
        path = self.folder and self.folder / "checkpoint.pt"
        if path is None or not path.is_file():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types for a damaged file
            raise ValueError(f"{path}: damaged ({type(error).__name__}); delete it to start this run again") from None
        if state["fingerprint"] != self.fingerprint:
            raise ValueError(f"{path}: written with other settings, data or model; delete it or use another folder")
        return state

    def save(self, **state) -> None:
        if self.writes:
            self._replace("checkpoint.pt", lambda path: torch.save(state | {"fingerprint": self.fingerprint}, path))

    def report(self, progress: Progress, loss: float) -> None:
        """What a study shows of a run that is under way."""
        if self.writes:
            now = {"step": progress.step, "steps": progress.steps, "loss": loss}
            now["tokens_per_second"] = progress.tokens_per_second
            now["seconds_left"] = progress.seconds / progress.step * (progress.steps - progress.step)
            self._replace("progress.json", lambda path: path.write_text(json.dumps(now), encoding="utf-8"))

    def _replace(self, name: str, write) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{name}.partial"
        write(partial)
        os.replace(partial, self.folder / name)


def autocast(device, precision: str):
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bf16")


def peak_memory_mb() -> float:
    """The most memory this process has held, in MB: of the GPU if there is one, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _derived_seed(*parts) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


def _fingerprint(settings: Training, trained: dict, train: list[Encoded]) -> str:
    content = [asdict(settings), {name: list(p.shape) for name, p in trained.items()}, len(train)]
    content.append(hashlib.sha256(repr([list(e.ids) for e in train[:100]]).encode()).hexdigest())
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _no_sync(accelerator, wrapped, enabled: bool):
    return accelerator.no_sync(wrapped) if enabled else nullcontext()
