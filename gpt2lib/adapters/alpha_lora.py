"""alpha-LoRA: LoRA beside frozen weights whose rows are rescaled (arXiv 2510.21345)."""

import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gpt2lib.adapters.lora import LoRALinear, LowRank
from gpt2lib.common.checks import check_count, check_fraction, check_number
from gpt2lib.model.decoder import Decoder
from gpt2lib.training.hooks import Hook
from gpt2lib.training.optimizer import AdamW


@dataclass(frozen=True)
class AlphaLoRA(LowRank, method="alpha-lora"):
    """y = row_alpha * (W x + b) + s B A x, with one trained row_alpha per output: [d_out], at first `initial`.

    Trained: LoRA's parameters and d_out per layer. In `training.fit` LoRA's are trained as always, and row_alpha by an
    Adam of its own with learning rate lr_alpha, once in `every` steps, on `batch_alpha` examples from a part of the
    training set that is held out for it (`share`). every, lr_alpha, share and batch_alpha are those of the authors'
    code (which draws `initial` unless it is given, and has s = 1). An `initial` other than 1 rescales the base from the
    start. Two controls: share=0 trains both on all examples, and lr_alpha=0 leaves row_alpha as it is, which is LoRA on
    the examples that alpha-LoRA would train it on.
    """

    initial: float = 1.0
    every: int = 10
    lr_alpha: float = 5e-3
    share: float = 0.2
    batch_alpha: int = 64

    def __post_init__(self):
        super().__post_init__()
        check_number("initial", self.initial, -1e6, 1e6)
        check_count("every", self.every)
        check_count("batch_alpha", self.batch_alpha)
        check_number("lr_alpha", self.lr_alpha, 0, 1e6)
        check_fraction("share", self.share)

    def layer(self, base: nn.Linear) -> "AlphaLoRALinear":
        return AlphaLoRALinear(base, self)

    def hooks(self, model: Decoder, train: list, seed: int) -> tuple[list, list[Hook]]:
        """Hold out a random `share` of the examples (unless it is 0: at least one, never all) for row_alpha."""
        if self.share == 0:
            return train, [AlphaUpdates(model, self, train)]
        if len(train) < 2:
            raise ValueError(f"alpha-LoRA holds out a part of the training set; {len(train)} example is too few")
        order = random.Random(f"alpha/{seed}").sample(range(len(train)), len(train))
        held_out = min(len(train) - 1, max(1, round(self.share * len(train))))
        kept = [train[i] for i in sorted(order[held_out:])]
        return kept, [AlphaUpdates(model, self, [train[i] for i in order[:held_out]])]


class AlphaLoRALinear(LoRALinear):
    def __init__(self, base: nn.Linear, spec: AlphaLoRA):
        super().__init__(base, spec)
        d_out = base.weight.shape[0]
        self.row_alpha = nn.Parameter(torch.full((d_out,), float(spec.initial), device=base.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        return (self.row_alpha * y + self.delta(x)).to(y.dtype)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """diag(row_alpha) W + s B A and row_alpha * b, in float64 and rounded once."""
        weight, bias, alpha = self.base.weight, self.base.bias, self.row_alpha.double()
        weight.copy_(alpha[:, None] * weight.double() + self.delta_weight())
        if bias is not None:
            bias.copy_(alpha * bias.double())
        return self.base


def row_alphas(model: Decoder) -> dict[str, nn.Parameter]:
    """The row_alpha of every layer that has one, by the layer's name: [d_out] each."""
    return {name: m.row_alpha for name, m in model.named_modules() if isinstance(m, AlphaLoRALinear)}


BETAS = (0.9, 0.99)  # of alpha's Adam


class AlphaUpdates(Hook):
    """Every T steps one Adam step on row_alpha alone, on a batch of its own; what that batch tells LoRA is dropped."""

    def __init__(self, model: Decoder, spec: AlphaLoRA, examples: list):
        self.spec, self.examples = spec, examples
        self.alphas = list(row_alphas(model).values())  # which training leaves to this hook
        self.optimizer = AdamW(self.alphas, lr=spec.lr_alpha, betas=BETAS)

    def parameters(self) -> list[nn.Parameter]:
        return self.alphas

    def before_step(self, run) -> None:
        step = run.progress.step
        if step == 0 or step % self.spec.every or self.spec.lr_alpha == 0:
            return
        rng = random.Random(f"alpha/{run.settings.seed}/{step}")
        run.gradients(rng.sample(self.examples, min(self.spec.batch_alpha, len(self.examples))))
        self.optimizer.step()
        run.model.zero_grad()

    def state_dict(self) -> dict:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.optimizer.load_state_dict(state)


class AlphaTrace(Hook):
    """Keeps how row_alpha moves: `rows` has step, layer (its name), mean and standard deviation over its rows."""

    def __init__(self, every: int = 10):
        self.every, self.rows = every, []

    def before_step(self, run) -> None:
        if run.progress.step % self.every == 0:
            for name, alpha in row_alphas(run.model.body).items():
                std, mean = torch.std_mean(alpha.detach())
                row = {"step": run.progress.step, "layer": name, "mean": mean.item(), "std": std.item()}
                self.rows.append(row)

    def state_dict(self) -> dict:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict) -> None:
        self.rows = state["rows"]
