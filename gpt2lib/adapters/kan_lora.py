"""Hybrid-KAN LoRA: LoRA on the feed-forward layer, and a low-rank spline layer beside it (after arXiv 2504.10490)."""

import math
import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2lib.adapters.base import AdapterLayer, blocks_in
from gpt2lib.adapters.lora import LowRank
from gpt2lib.common.checks import check_count
from gpt2lib.common.machine import autocast
from gpt2lib.model.decoder import Decoder
from gpt2lib.model.generate import evaluating
from gpt2lib.training.hooks import Hook


@dataclass(frozen=True)
class KANLoRA(LowRank, method="kan-lora"):
    """LoRA on the targets, and out = MLP(x) + U KAN(D x) in every block (KAN: Liu et al. 2024, arXiv 2404.19756).

    D: [kan_rank, n_embd]; U: [n_embd, kan_rank], 0 at first. KAN(z)_j = sum_i [w_ji silu(z_i) + sum_m c_jim B_m(z_i)],
    B_m the grid + order B-splines of that order on `grid` equal intervals of a range that `training.fit` fits to D x,
    at the first step and again every `refresh` steps. Trained: LoRA's parameters and, per block,
    2 n_embd kan_rank + kan_rank^2 (1 + grid + order).
    full_size=True has neither D nor U: a trained KAN layer from n_embd to n_embd beside the MLP, whose
    n_embd^2 (1 + grid + order) parameters (they start at 0) are more than the MLP's own; it is here to show that. The
    published form is another: KAN layers n_embd -> 2 n_embd -> n_embd replace the MLP. None of it merges.
    """

    targets: tuple[str, ...] = ("up", "down")
    kan_rank: int = 8
    grid: int = 5
    order: int = 3
    refresh: int = 200
    full_size: bool = False

    def __post_init__(self):
        super().__post_init__()
        for name, most in (("kan_rank", None), ("grid", 1000), ("order", 20), ("refresh", None)):
            check_count(name, getattr(self, name), at_most=most)

    def install(self, model: Decoder) -> None:
        if self.kan_rank > model.config.n_embd:
            raise ValueError(f"kan_rank={self.kan_rank} is above the width; possible: 1 to {model.config.n_embd}")
        super().install(model)
        for i in blocks_in(self.layers, model.config.n_layer):
            model.blocks[i].mlp = KANMLP(model.blocks[i].mlp, self, model.config.n_embd)

    def hooks(self, model: Decoder, train: list, seed: int) -> tuple[list, list[Hook]]:
        return train, [GridFit(self.refresh)]


def bspline_bases(z: Tensor, grid: int, order: int) -> Tensor:
    """The grid + order B-splines on [-1, 1], continued by `order` intervals on both sides: [...] -> [..., bases].

    Cox-de Boor recursion on equally spaced knots, in float32 or better. Inside [-1, 1] they sum to 1 and at most
    order + 1 of them are not 0; far outside all are 0.
    """
    step = 2 / grid
    z = z.float() if z.dtype in (torch.bfloat16, torch.float16) else z
    z = z.unsqueeze(-1)
    knots = torch.arange(-order, grid + order + 1, device=z.device, dtype=z.dtype) * step - 1
    bases = ((z >= knots[:-1]) & (z < knots[1:])).to(z.dtype)  # order 0: [..., grid + 2 order]
    for k in range(1, order + 1):
        rising = (z - knots[: -k - 1]) / (k * step)
        falling = (knots[k + 1 :] - z) / (k * step)
        bases = rising * bases[..., :-1] + falling * bases[..., 1:]
    return bases


class KANMLP(AdapterLayer):
    """A frozen feed-forward layer (with LoRA inside) and splines beside it."""

    def __init__(self, base: nn.Module, spec: KANLoRA, d: int):
        super().__init__(base)
        device = next(base.parameters()).device
        r = d if spec.full_size else spec.kan_rank
        self.spec = spec
        self.D = self.U = None
        self.w = nn.Parameter(torch.zeros(r, r, device=device))
        self.c = nn.Parameter(torch.zeros(r, r, spec.grid + spec.order, device=device))
        if not spec.full_size:  # U alone makes it 0, so all else may start anywhere
            self.D = nn.Parameter(torch.empty(r, d, device=device))
            self.U = nn.Parameter(torch.zeros(d, r, device=device))
            nn.init.kaiming_uniform_(self.D, a=math.sqrt(5))
            nn.init.kaiming_uniform_(self.w, a=math.sqrt(5))
            nn.init.normal_(self.c, std=0.1 / math.sqrt(r))
        self.register_buffer("middle", torch.zeros(r, device=device))  # the grid of input i: middle_i +- width_i
        self.register_buffer("width", torch.ones(r, device=device))

    def project(self, x: Tensor) -> Tensor:
        """D x: [..., n_embd] -> [..., kan_rank]"""
        x = x.to(self.c.dtype)
        return x if self.D is None else F.linear(x, self.D)

    def bases(self, z: Tensor) -> Tensor:
        """[..., kan_rank] -> [..., kan_rank, grid + order]"""
        return bspline_bases((z - self.middle) / self.width, self.spec.grid, self.spec.order)

    def delta(self, x: Tensor) -> Tensor:
        z = self.project(x)
        out = F.linear(F.silu(z), self.w) + F.linear(self.bases(z).flatten(-2).to(z.dtype), self.c.flatten(1))
        return out if self.U is None else F.linear(out, self.U)

    @torch.no_grad()
    def fit_grid(self, x: Tensor) -> None:
        """Let the grid span where D x lies (all but a hundredth on either side), and keep the splines' shapes.

        x: [samples, n_embd]. The coefficients on the new grid are those of least squares at the samples.
        """
        z = self.project(x)  # [samples, kan_rank]
        curves = torch.einsum("sim,jim->isj", self.bases(z).double(), self.c.double())  # [input, samples, output]
        low, high = z.quantile(torch.tensor([0.01, 0.99], device=z.device, dtype=z.dtype), dim=0)
        self.middle.copy_((low + high) / 2)
        self.width.copy_(((high - low) / 2).clamp(min=1e-3))
        bases = self.bases(z).double().transpose(0, 1)  # [input, samples, bases]
        gram = bases.mT @ bases + 1e-6 * torch.eye(bases.shape[-1], device=z.device)  # few samples: stay near 0
        self.c.copy_(torch.linalg.solve(gram, bases.mT @ curves).permute(2, 0, 1))


class GridFit(Hook):
    """Fit every spline layer's grid to a sample of the training set, at the first step and then every so often."""

    examples, tokens = 32, 2048  # of the sample

    def __init__(self, every: int):
        self.every = every

    @torch.no_grad()
    def before_step(self, run) -> None:
        step = run.progress.step
        if step % self.every:
            return
        rng = random.Random(f"grid/{run.settings.seed}/{step}")
        batch = run.batch(rng.sample(run.train, min(self.examples, len(run.train))))
        inputs: dict[KANMLP, Tensor] = {}
        layers = [m for m in run.model.modules() if isinstance(m, KANMLP)]
        handles = [
            layer.register_forward_pre_hook(
                lambda layer, args: inputs.update({layer: args[0][batch.real][: self.tokens]})
            )
            for layer in layers
        ]
        # in which frozen matrices may be held
        with evaluating(run.model), autocast(batch.input_ids.device, run.settings.precision):
            run.model.body(batch.input_ids, hidden=batch.hidden, first=batch.first)
        for handle in handles:
            handle.remove()
        for layer in layers:
            layer.fit_grid(inputs[layer])
