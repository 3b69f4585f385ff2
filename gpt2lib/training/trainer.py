"""The training loop: `fit` trains what requires gradients, evaluates, checkpoints and resumes; `evaluate` measures.

One step is a function of the weights, the optimiser's state, the seed and the step's number alone: the order of the data
and the random numbers of dropout are derived from (seed, step), not carried along. So a run that was killed goes on
from its last checkpoint to the same bits (on a CPU), and several processes see the batches that one would.
"""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from gpt2lib.common.machine import peak_memory_mb
from gpt2lib.data.batches import Batch, Encoded, bucketed_batches, sorted_batches
from gpt2lib.training.checkpoint import Checkpoint, Progress
from gpt2lib.training.hooks import Hook
from gpt2lib.training.objectives import Classifier
from gpt2lib.training.optimizer import AdamW, Muon
from gpt2lib.training.settings import Training


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
    hooks: Sequence[Hook] = (),
) -> Progress:
    """Train the parameters of `model` that require gradients, and leave it with those that were best on dev.

    model: a `heads.Classifier` or `heads.LanguageModel`, whose forward gives the summed loss of a batch. folder: where
    checkpoint.pt and progress.json are kept; a second call with the same folder and settings goes on where the first
    one stopped. Under `accelerate launch` every process takes its share of each batch. hooks: called before every step
    (see `hooks.Hook`), after those that the attached adapter brings.
    Raises ValueError for empty data, nothing to train, or a checkpoint that other settings wrote; a loss that is not
    finite ends the run with FloatingPointError.
    """
    if not train or not dev:
        raise ValueError(f"fit needs examples: {len(train)} to train on, {len(dev)} to evaluate on")
    if not trained_parameters(model):
        raise ValueError("no parameter of the model requires a gradient; attach an adapter or unfreeze something")
    run = _Fit(model, train, dev, settings, folder, hooks)
    try:
        _loop(run, checkpoint_seconds, quiet or not run.accelerator.is_main_process)
    finally:
        run.release()
    return run.progress


def _loop(run: "_Fit", checkpoint_seconds: float, quiet: bool) -> None:
    with tqdm(total=run.progress.steps, initial=run.progress.step, unit="step", disable=quiet) as bar:
        saved = reported = time.monotonic()
        while not run.stopped:
            loss = run.step()
            bar.update()
            if run.progress.step % run.eval_every == 0 or run.progress.step == run.progress.steps:
                row = run.evaluate(loss)
                bar.set_postfix({run.model.metric: f"{row[run.model.metric]:.4g}"})
            now = time.monotonic()
            if run.stopped or now - saved > checkpoint_seconds:
                run.save()
                saved = now
            if run.stopped or now - reported > 1:
                run.checkpoint.report(run.progress, loss)
                reported = now
    run.restore_best()


class _Fit:
    """The state of one call of `fit`; its methods are the parts of the loop."""

    def __init__(self, model, train, dev, settings: Training, folder, hooks: Sequence[Hook]):
        from accelerate import Accelerator  # two seconds of imports that a user of the model alone need not pay

        spec = model.body.adapter
        train, own_hooks = spec.hooks(model.body, train, settings.seed) if spec else (train, [])
        self.hooks = [*own_hooks, *hooks]
        self.model, self.train, self.dev, self.settings = model, train, dev, settings
        self.accelerator = Accelerator()
        self.wrapped = self.accelerator.prepare(model)
        self.trained = trained_parameters(model)
        if isinstance(model, Classifier) and not any(p.requires_grad for p in model.body.parameters()):
            self.train, self.dev = (with_features(model, part, settings) for part in (train, dev))
        self.held = _hold_frozen_in_bf16(model) if settings.precision == "bf16" else []
        elsewhere = {id(p) for hook in self.hooks for p in hook.parameters()}
        self.updated = {name: p for name, p in self.trained.items() if id(p) not in elsewhere}
        self.optimizer = _optimizer(self.updated, settings)
        self.lengths = [len(example.ids) for example in train]
        self.per_epoch = -(-len(train) // settings.batch_size)
        steps = settings.epochs * self.per_epoch
        self.progress = Progress(steps=min(steps, settings.max_steps or steps))
        self.eval_every = settings.eval_every or self.per_epoch
        self.best: dict[str, torch.Tensor] = {}
        self.batches, self.batches_epoch = [], -1
        fingerprint = _fingerprint(settings, self.trained, train)
        self.checkpoint = Checkpoint(folder, fingerprint, self.accelerator.is_main_process)
        if (state := self.checkpoint.load()) is not None:
            self.progress, self.best = Progress(**state["progress"]), state["best"]
            self.optimizer.load_state_dict(state["optimizer"])
            for hook, hook_state in zip(self.hooks, state["hooks"], strict=True):
                hook.load_state_dict(hook_state)
            self._set(state["trained"])

    @property
    def stopped(self) -> bool:
        patience = self.settings.patience
        return self.progress.step >= self.progress.steps or (patience is not None and self.progress.stale >= patience)

    def step(self) -> float:
        """One update; returns its loss."""
        began = time.monotonic()
        settings, progress = self.settings, self.progress
        epoch, position = divmod(progress.step, self.per_epoch)
        if epoch != self.batches_epoch:
            self.batches = bucketed_batches(self.lengths, settings.batch_size, settings.seed, epoch)
            self.batches_epoch = epoch
        torch.manual_seed(_derived_seed(settings.seed, progress.step, self.accelerator.process_index))
        self.wrapped.train()
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr_at(progress.step, progress.steps)
        for hook in self.hooks:
            hook.before_step(self)
        chosen = [self.train[i] for i in self.batches[position]]
        loss = self.gradients(chosen)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"loss is {loss} at step {progress.step + 1} of {progress.steps}; lower lr={settings.lr}"
            )
        self.accelerator.clip_grad_norm_(self.updated.values(), settings.max_grad_norm)
        self.optimizer.step()
        self.model.zero_grad()

        progress.step += 1
        progress.examples += len(chosen)
        progress.tokens += sum(len(e.ids) for e in chosen)
        progress.padded_tokens += len(chosen) * max(len(e.ids) for e in chosen)
        progress.seconds += time.monotonic() - began
        progress.peak_memory_mb = max(progress.peak_memory_mb, peak_memory_mb())
        return loss

    def gradients(self, chosen: list[Encoded]) -> float:
        """Gradients of the mean loss over one update's batch, and that loss, whatever the parts and processes."""
        accelerator, accumulate = self.accelerator, self.settings.accumulate
        rank, world = accelerator.process_index, accelerator.num_processes
        total = sum(self.model.weight(example) for example in chosen)
        mean = torch.zeros((), device=accelerator.device)
        for i in range(accumulate):
            mine = chosen[i * world + rank :: accumulate * world]
            # every process must take part in every synchronisation, if need be with an example that counts nothing
            batch = self.batch(mine or chosen[:1])
            wait = accelerator.no_sync(self.wrapped) if i < accumulate - 1 else nullcontext()
            with wait, autocast(accelerator.device, self.settings.precision):
                loss = self.wrapped(batch) * (bool(mine) / total)
                accelerator.backward(loss * world)  # the processes' gradients are averaged
            mean += loss.detach()
        return accelerator.reduce(mean, "sum").item()

    def batch(self, examples: list[Encoded]) -> Batch:
        return Batch.of(examples, self.accelerator.device)

    def evaluate(self, train_loss: float) -> dict:
        """Measure on dev, keep the weights if they are the best so far; returns the new row of the history."""
        began = time.monotonic()
        model, progress, settings = self.model, self.progress, self.settings
        metrics, _ = evaluate(model, self.dev, settings.batch_size, settings.precision)
        progress.seconds_evaluating += time.monotonic() - began
        row = {
            "step": progress.step,
            "epoch": progress.step / self.per_epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        row |= {"train_loss": train_loss, "seconds": progress.seconds, "tokens": progress.tokens} | metrics
        progress.history.append(row)
        if not progress.best or model.sign * row[model.metric] > model.sign * progress.best[model.metric]:
            progress.best, progress.stale = row, 0
            self.best = {name: value.detach().clone() for name, value in self._state().items()}
        else:
            progress.stale += 1
        return row

    def save(self) -> None:
        now = {name: value.detach() for name, value in self._state().items()}
        state = dict(progress=asdict(self.progress), best=self.best, optimizer=self.optimizer.state_dict())
        self.checkpoint.save(**state, hooks=[hook.state_dict() for hook in self.hooks], trained=now)

    def _state(self) -> dict[str, torch.Tensor]:
        """All that training changes: what is trained, and the buffers (a grid, say) that a hook may fit."""
        return self.trained | dict(self.model.named_buffers())

    def release(self) -> None:
        """Give the frozen weights their own bits back."""
        while self.held:
            p, data = self.held.pop()
            p.data = data

    def restore_best(self) -> None:
        self._set(self.best)
        self.model.eval()

    @torch.no_grad()
    def _set(self, values: dict[str, torch.Tensor]) -> None:
        for name, value in self._state().items():
            value.copy_(values[name])


def evaluate(model, examples: list[Encoded], batch_size: int = 16, precision: str = "float32") -> tuple[dict, list]:
    """Metrics of `model` on labelled examples, and its prediction for each of them in their order.

    Under `accelerate launch` every process measures its share, and all return the whole.
    """
    predictions = predict(model, examples, batch_size, precision)
    return model.metrics(predictions, examples), predictions


@torch.no_grad()
def predict(model, examples: list[Encoded], batch_size: int = 16, precision: str = "float32") -> list:
    """The model's prediction for each example, labelled or not, in their order."""
    return _for_each(model, model.predict, examples, batch_size, precision)


def _for_each(model, function, examples: list[Encoded], batch_size: int, precision: str, progress: str = "") -> list:
    """What `function` makes of each example, in their order, a batch at a time; the processes share the batches.

    progress: what a progress bar says, if it takes more than two seconds.
    """
    from accelerate import PartialState
    from accelerate.utils import gather_object

    state = PartialState()
    model.eval()
    device = next(model.parameters()).device
    batches = sorted_batches([len(e.ids) for e in examples], batch_size)[state.process_index :: state.num_processes]
    outputs = []
    for indices in tqdm(batches, desc=progress, unit="batch", leave=False, delay=2, disable=not progress):
        with autocast(device, precision):
            made = function(Batch.of([examples[i] for i in indices], device))
        outputs += zip(indices, made, strict=True)
    return [prediction for _, prediction in sorted(gather_object(outputs), key=lambda output: output[0])]


@torch.no_grad()
def with_features(model: Classifier, examples: list[Encoded], settings: Training) -> list[Encoded]:
    """The examples with what the frozen body makes of them, so that it need not be run again: without dropout."""

    def rows(batch: Batch) -> torch.Tensor:
        return model.features(batch).float().cpu()  # [batch, n_embd]

    features = _for_each(model, rows, examples, settings.batch_size, settings.precision, "features of the frozen body")
    return [replace(example, features=row) for example, row in zip(examples, features, strict=True)]


def _hold_frozen_in_bf16(model) -> list[tuple[torch.nn.Parameter, torch.Tensor]]:
    """Let the frozen matrices be bf16 while a run lasts, and return what they were: autocast would cast each of them
    again in every step, and only remembers those that are trained."""
    held = []
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear) and not layer.weight.requires_grad:
            held.append((layer.weight, layer.weight.data))
            layer.weight.data = layer.weight.data.bfloat16()
    return held


def _optimizer(trained: dict[str, torch.nn.Parameter], settings: Training) -> AdamW:
    given = dict(lr=settings.lr, weight_decay=settings.weight_decay)
    if settings.optimizer == "adamw":
        return AdamW(trained.values(), **given)
    matrices = [p for name, p in trained.items() if p.dim() == 2 and "blocks." in name]
    return Muon(matrices, [p for p in trained.values() if all(p is not matrix for matrix in matrices)], **given)


def autocast(device, precision: str):
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bf16")


def _derived_seed(*parts) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


def _fingerprint(settings: Training, trained: dict, train: list[Encoded]) -> str:
    content = [asdict(settings), {name: list(p.shape) for name, p in trained.items()}, len(train)]
    content.append(hashlib.sha256(repr([list(e.ids) for e in train[:100]]).encode()).hexdigest())
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
