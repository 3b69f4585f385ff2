"""The training loop: `fit` trains what requires gradients, evaluates, checkpoints and resumes.

One step is a function of the weights, the optimiser's state, the seed and the step's number alone: the order of the
data and the random numbers of dropout are derived from (seed, step), not carried along. So a run that was killed goes
on from its last checkpoint to the same bits (on a CPU), and several processes see the batches that one would.
"""

import hashlib
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm.auto import tqdm

from gpt2lib.common.machine import autocast, peak_memory_mb, processes
from gpt2lib.data.batches import Batch, Encoded, bucketed_batches
from gpt2lib.training.checkpoint import Checkpoint, Progress, identity_of
from gpt2lib.training.evaluate import evaluate
from gpt2lib.training.hooks import Hook
from gpt2lib.training.objectives import Objective, merit, trained_parameters
from gpt2lib.training.optimizer import AdamW, Muon
from gpt2lib.training.prefix import below, frozen_blocks, with_prefix
from gpt2lib.training.settings import TrainingSettings


def fit(
    model: Objective,
    train: list[Encoded],
    dev: list[Encoded],
    settings: TrainingSettings = TrainingSettings(),
    folder: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
    quiet: bool = False,
    hooks: Sequence[Hook] = (),
) -> Progress:
    """Train the parameters of `model` that require gradients, and leave it with those that were best on dev.

    folder: where checkpoint.pt and progress.json are kept; a second call with the same folder, model, data and settings
    goes on where the first one stopped. Under `accelerate launch` every process takes its share of each batch. hooks:
    called before every step (see `hooks.Hook`), after those that the attached adapter brings.
    Raises ValueError for empty data, nothing to train, or a checkpoint that another run wrote, naming what differs; a
    loss that is not finite ends the run with FloatingPointError.
    """
    return Trainer(model, train, dev, settings, folder, hooks, quiet).run(checkpoint_seconds)


class Trainer:
    """One training run. `run` does all of it; `step` and `evaluate` are its parts, for loops of one's own.

    Frozen blocks below everything that is trained are run once for each text (see `prefix`), without dropout. The
    other arguments are those of `fit`.
    """

    def __init__(
        self,
        model: Objective,
        train: list[Encoded],
        dev: list[Encoded],
        settings: TrainingSettings = TrainingSettings(),
        folder: str | Path | None = None,
        hooks: Sequence[Hook] = (),
        quiet: bool = True,
    ):
        from accelerate import Accelerator, DistributedDataParallelKwargs  # heavy, see `processes`

        if not train or not dev:
            raise ValueError(f"training needs examples: {len(train)} to train on, {len(dev)} to evaluate on")
        if useless := sum(model.weight(example) == 0 for example in (*train, *dev)):
            raise ValueError(f"{useless} of the texts have no token to learn from or to measure on; leave them out")
        self.trained = trained_parameters(model)
        if not self.trained:
            raise ValueError("no parameter of the model requires a gradient; attach an adapter or unfreeze something")
        self.model, self.settings = model, settings
        processes()
        # a process whose share of a batch lacks a task has no gradient for that task's head
        self.accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
        self.wrapped = self.accelerator.prepare(model)
        self.quiet = quiet or not self.accelerator.is_main_process
        self.progress = Progress()
        self.best: dict[str, torch.Tensor] = {}
        identity = identity_of(model, train, dev, settings) if folder is not None else {}
        self.checkpoint = Checkpoint(folder, identity, self.accelerator.is_main_process)
        state = self.checkpoint.load()

        # what is below the first trained block gives the same in every step; a run that has ended needs none of it
        self.below = below(model.body, frozen_blocks(model.body))
        if state is None or not self._over(Progress(**state["progress"])):
            train, dev = (with_prefix(model, part, settings.precision, self.quiet) for part in (train, dev))
        spec = model.body.adapter
        self.train, own_hooks = spec.hooks(model.body, train, settings.seed) if spec else (train, [])
        self.dev, self.hooks = dev, [*own_hooks, *hooks]
        self.held = _hold_frozen_in_bf16(model) if settings.precision == "bf16" else []

        elsewhere = {id(p) for hook in self.hooks for p in hook.parameters()}
        self.updated = {name: p for name, p in self.trained.items() if id(p) not in elsewhere}
        self.optimizer = _optimizer(self.updated, settings)
        self.lengths = [len(example.ids) for example in self.train]
        self.per_epoch = -(-len(self.train) // settings.batch_size)
        steps = settings.epochs * self.per_epoch
        self.progress.steps = min(steps, settings.max_steps or steps)
        self.batches, self.batches_epoch = [], -1
        if state is not None:
            self._resume(state)

    def _resume(self, state: dict) -> None:
        self.progress, self.best = Progress(**state["progress"]), state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        for hook, hook_state in zip(self.hooks, state["hooks"], strict=True):
            hook.load_state_dict(hook_state)
        self._set(state["trained"])

    def run(self, checkpoint_seconds: float = 60.0) -> Progress:
        """All steps that are left, with an evaluation every epoch; the model is left with its best weights."""
        progress = self.progress
        eval_every = self.settings.eval_every or self.per_epoch
        try:
            with tqdm(total=progress.steps, initial=progress.step, unit="step", disable=self.quiet) as bar:
                saved = reported = time.monotonic()
                while not self.stopped:
                    loss = self.step()
                    bar.update()
                    if progress.step % eval_every == 0 or progress.step == progress.steps:
                        row = self.evaluate(loss)
                        bar.set_postfix({self.model.metric: f"{row[self.model.metric]:.4g}"})
                    now = time.monotonic()
                    if self.stopped or now - saved > checkpoint_seconds:
                        self.save()
                        saved = now
                    if self.stopped or now - reported > 1:
                        self.checkpoint.report(progress, loss)
                        reported = now
            self._set(self.best)
            self.model.eval()
        finally:
            self.release()
        return progress

    @property
    def stopped(self) -> bool:
        return self._over(self.progress)

    def _over(self, progress: Progress) -> bool:
        patience = self.settings.patience
        return 0 < progress.steps <= progress.step or (patience is not None and progress.stale >= patience)

    def step(self) -> float:
        """One update; returns its loss."""
        began = time.monotonic()
        settings, progress = self.settings, self.progress
        chosen = self._next_batch()
        torch.manual_seed(_derived_seed(settings.seed, progress.step, self.accelerator.process_index))
        self.wrapped.train()
        for module in self.below:
            module.eval()
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr_at(progress.step, progress.steps)
        for hook in self.hooks:
            hook.before_step(self)
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

    def _next_batch(self) -> list[Encoded]:
        epoch, position = divmod(self.progress.step, self.per_epoch)
        if epoch != self.batches_epoch:
            settings = self.settings
            self.batches = bucketed_batches(self.lengths, settings.batch_size, settings.seed, epoch)
            self.batches_epoch = epoch
        return [self.train[i] for i in self.batches[position]]

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
        """Measure on dev, keep the weights if they are the best so far; returns the new row of the history.

        Of two evaluations with the same metric the one with the smaller loss is the better.
        """
        began = time.monotonic()
        model, progress, settings = self.model, self.progress, self.settings
        # without `keep`: what is frozen was kept when the run began, or did not fit then
        metrics, _ = evaluate(model, self.dev, settings.batch_size, settings.precision, keep=False)
        progress.seconds_evaluating += time.monotonic() - began
        row = {
            "step": progress.step,
            "epoch": progress.step / self.per_epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        row |= {"train_loss": train_loss, "seconds": progress.seconds, "tokens": progress.tokens} | metrics
        progress.history.append(row)
        if not progress.best or merit(model, row) > merit(model, progress.best):
            progress.best, progress.stale = row, 0
            self.best = {name: value.detach().clone() for name, value in self._state().items()}
        else:
            progress.stale += 1
        return row

    def save(self) -> None:
        """Write the checkpoint, if the run has a folder."""
        now = {name: value.detach() for name, value in self._state().items()}
        state = dict(progress=asdict(self.progress), best=self.best, optimizer=self.optimizer.state_dict())
        self.checkpoint.save(**state, hooks=[hook.state_dict() for hook in self.hooks], trained=now)

    def release(self) -> None:
        """Give the frozen weights their own bits back, which bf16 training held in bf16."""
        while self.held:
            p, data = self.held.pop()
            p.data = data

    def _state(self) -> dict[str, torch.Tensor]:
        """All that training changes: what is trained, and the buffers (a grid, say) that a hook may fit."""
        return self.trained | dict(self.model.named_buffers())

    @torch.no_grad()
    def _set(self, values: dict[str, torch.Tensor]) -> None:
        for name, value in self._state().items():
            value.copy_(values[name])


def _hold_frozen_in_bf16(model) -> list[tuple[torch.nn.Parameter, torch.Tensor]]:
    """Let the frozen matrices be bf16 while a run lasts, and return what they were: autocast would cast each of them
    again in every step, and only remembers those that are trained."""
    held = []
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear) and not layer.weight.requires_grad:
            held.append((layer.weight, layer.weight.data))
            layer.weight.data = layer.weight.data.bfloat16()
    return held


def _optimizer(trained: dict[str, torch.nn.Parameter], settings: TrainingSettings) -> AdamW:
    """Weight decay is for matrices alone: biases, norms' scales and other vectors are left out of it, as in GPT-2; but
    with Muon all that is trained decays, as it did when gpt2-mini was pretrained."""
    if settings.optimizer == "muon":
        matrices = {name: p for name, p in trained.items() if p.dim() == 2 and "blocks." in name}
        others = [p for name, p in trained.items() if name not in matrices]
        return Muon(matrices.values(), others, lr=settings.lr, weight_decay=settings.weight_decay)
    decayed, others = ([p for p in trained.values() if (p.dim() >= 2) == is_matrix] for is_matrix in (True, False))
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return AdamW([group for group in groups if group["params"]], lr=settings.lr)


def _derived_seed(*parts) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")
