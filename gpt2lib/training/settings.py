"""How to train: the settings of `training.fit`, which check themselves."""

import math
from dataclasses import dataclass

from gpt2lib.common.checks import check_count, check_number, check_positive, check_types


@dataclass(frozen=True)
class TrainingSettings:
    """How to train. Raises ValueError for a setting out of range.

    batch_size: examples per update, over all processes; accumulate: the parts an update's batch is split into.
    lr rises linearly over the first `warmup` fraction of the steps and falls linearly to 0 over the last `decay` of the
    rest: at decay=1 it begins to fall at once, at 0.2 it is constant for long (warm-up, stable, decay).
    optimizer: "adamw", or "muon" for pretraining (`optimizer.Muon` on the matrices of the blocks).
    patience: evaluations without a better dev metric after which training stops, or None.
    eval_every, max_steps: in steps; None means once an epoch, and all epochs.
    precision: "float32", or "bf16" for autocast (weights and optimiser stay in float32).
    """

    epochs: int = 3
    batch_size: int = 16
    lr: float = 1e-3
    weight_decay: float = 0.0
    optimizer: str = "adamw"
    warmup: float = 0.1
    decay: float = 1.0
    max_grad_norm: float = 1.0
    accumulate: int = 1
    precision: str = "float32"
    patience: int | None = None
    eval_every: int | None = None
    max_steps: int | None = None
    seed: int = 0

    def __post_init__(self):
        check_types(self, infinite=("max_grad_norm",))
        for name in ("epochs", "batch_size", "accumulate"):
            check_count(name, getattr(self, name))
        for name in ("patience", "eval_every", "max_steps"):
            if (value := getattr(self, name)) is not None:
                check_count(name, value)
        check_positive("lr", self.lr)
        check_number("weight_decay", self.weight_decay, 0, math.inf)
        check_number("warmup", self.warmup, 0, 1)
        for name, most in (("max_grad_norm", math.inf), ("decay", 1)):
            if not 0 < (value := getattr(self, name)) <= most:
                raise ValueError(f"{name} must be above 0 and at most {most:g}, not {value!r}")
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f"optimizer must be 'adamw' or 'muon', not {self.optimizer!r}")
        if self.precision not in ("float32", "bf16"):
            raise ValueError(f"precision must be 'float32' or 'bf16', not {self.precision!r}")

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of step 0, 1, ... of `steps`."""
        rise = max(1, round(self.warmup * steps))
        fall = self.decay * (steps - rise)
        return self.lr * min((step + 1) / rise, (steps - step) / (fall + 1), 1.0)
