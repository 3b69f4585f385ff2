"""LoRA: low-rank adaptation (Hu et al. 2021, arXiv 2106.09685), with the rank-stabilised scale as an option."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gpt2lib.adapters.base import AdaptedLinear, Spec, check_targets, target_layers
from gpt2lib.common.checks import check_count, check_fraction, check_number
from gpt2lib.model.decoder import Decoder
from gpt2lib.model.linear import linear


@dataclass(frozen=True)
class LowRank(Spec, method=None):
    """What LoRA is and other methods have beside their own part: y = W x + b + s B A x on the target layers.

    s = alpha / rank; dropout acts on the x that enters A. targets: any of q, k, v, o, up, down and a Llama's gate.
    rank_stabilised: s = alpha / sqrt(rank), which keeps the size of the update as the rank grows (Kalajdzievski 2023,
    arXiv 2312.03732).
    Raises ValueError for a rank below 1, a dropout outside [0, 1), an unknown target; at attaching for a rank above
    the layer's.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q", "v")
    rank_stabilised: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_count("rank", self.rank)
        check_number("alpha", self.alpha, -1e6, 1e6)
        check_fraction("dropout", self.dropout)
        check_targets(self.targets)

    @property
    def scaling(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)

    def layer(self, base: nn.Linear) -> "LoRALinear":
        return LoRALinear(base, self)

    def install(self, model: Decoder) -> None:
        layers = list(target_layers(model, self.targets, self.layers))
        for _, name, base in layers:
            if self.rank > min(base.weight.shape):
                raise ValueError(f"rank={self.rank} is above that of {name}; possible: 1 to {min(base.weight.shape)}")
        for parent, name, base in layers:
            setattr(parent, name, self.layer(base))


@dataclass(frozen=True)
class LoRA(LowRank, method="lora"):
    """y = W x + b + s B A x on the target layers, and nothing else. Trained: rank (d_in + d_out) per layer."""


class LoRALinear(AdaptedLinear):
    """A: [rank, d_in], Kaiming-uniform; B: [d_out, rank], 0, so that the update starts at 0."""

    def __init__(self, base: nn.Linear, spec: LowRank):
        super().__init__(base)
        d_out, d_in = base.weight.shape
        device = base.weight.device
        self.A = nn.Parameter(torch.empty(spec.rank, d_in, device=device))  # float32 even beside a bf16 base
        self.B = nn.Parameter(torch.zeros(d_out, spec.rank, device=device))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.scaling = spec.scaling
        self.dropout = nn.Dropout(spec.dropout)

    def delta(self, x: Tensor) -> Tensor:
        x = self.dropout(x).to(self.A.dtype)
        return linear(self.scaling * linear(x, self.A), self.B)  # [..., d_in] -> [..., rank] -> [..., d_out]

    def delta_weight(self) -> Tensor:
        return self.scaling * self.B.double() @ self.A.double()
