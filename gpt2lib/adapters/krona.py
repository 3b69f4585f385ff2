"""KronA: updates that are Kronecker products (Edalati et al. 2022, arXiv 2212.10650)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2lib.adapters.base import AdaptedLinear, AdapterLayer, Spec, blocks_in, check_targets, target_layers
from gpt2lib.common.checks import check_count, check_fraction, check_number
from gpt2lib.model.decoder import Decoder


def kronecker_linear(x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """(A kron B) x for every x, without forming the product: [..., a2 b2] -> [..., a1 b1].

    A: [a1, a2], B: [b1, b2]. With X = reshape(x, [a2, b2]), row by row, it is A X B^T read row by row; of the two
    orders of multiplication the cheaper one is taken.
    """
    (a1, a2), (b1, b2) = A.shape, B.shape
    X = x.unflatten(-1, (a2, b2))
    # each product as one large matrix product: F.linear on the last dimension, the other dimension turned there
    if a2 * b1 * (b2 + a1) <= a1 * b2 * (a2 + b1):
        return F.linear(F.linear(X, B).mT, A).mT.flatten(-2)  # A (X B^T): [..., a2, b1] -> [..., a1, b1]
    return F.linear(F.linear(X.mT, A).mT, B).flatten(-2)  # (A X) B^T: [..., a1, b2] -> [..., a1, b1]


def factor_shapes(
    d_out: int, d_in: int, shape: tuple[int, int] | None = None, budget: int | None = None
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The shapes [a1, a2] of A and [b1, b2] of B, with a1 b1 = d_out and a2 b2 = d_in.

    shape: A's. Without it the divisors nearest sqrt(d_out) and sqrt(d_in); or, given a budget, those divisors that
    bring a1 a2 + b1 b2 nearest to it, of those the most balanced; no shape has fewer than 2 sqrt(d_out d_in). Raises
    ValueError, listing the divisors, for a shape that does not divide the dimensions.
    """
    outs, ins = _divisors(d_out), _divisors(d_in)
    if shape is not None:
        if shape[0] not in outs or shape[1] not in ins:
            raise ValueError(
                f"A of shape {list(shape)} does not divide a layer of shape {[d_out, d_in]}; "
                f"possible: one of {outs} and one of {ins}"
            )
    elif budget is not None:

        def distance(ab):
            a1, a2 = ab
            size = a1 * a2 + (d_out // a1) * (d_in // a2)
            return abs(size - budget), abs(math.log(a1 * a1 / d_out)) + abs(math.log(a2 * a2 / d_in))

        shape = min(((a1, a2) for a1 in outs for a2 in ins), key=distance)
    else:
        shape = tuple(min(ds, key=lambda a, d=d: abs(a - math.sqrt(d))) for ds, d in ((outs, d_out), (ins, d_in)))
    a1, a2 = shape
    return (a1, a2), (d_out // a1, d_in // a2)


def _divisors(n: int) -> list[int]:
    return [i for i in range(1, n + 1) if n % i == 0]


@dataclass(frozen=True)
class _Kronecker(Spec, method=None):
    """The settings that KronA and KronAB share."""

    scale: float = 1.0
    dropout: float = 0.0
    shape: tuple[int, int] | None = None
    budget: int | None = None

    def __post_init__(self):
        super().__post_init__()
        check_number("scale", self.scale, -1e6, 1e6)
        check_fraction("dropout", self.dropout)
        if self.shape is not None and self.budget is not None:
            raise ValueError("give the shape of A or a budget of parameters per layer, not both")
        if self.shape is not None and any(n < 1 for n in self.shape):
            raise ValueError(f"shape must be two integers of at least 1, a1 and a2, not {self.shape!r}")
        if self.budget is not None:
            check_count("budget", self.budget, at_least=2)


@dataclass(frozen=True)
class KronA(_Kronecker, method="krona"):
    """y = W x + b + scale (A kron B) x on the target layers. Trained: a1 a2 + b1 b2 per layer.

    shape: (a1, a2), that of A, which must divide (d_out, d_in); None takes the divisors nearest the square roots, or
    with `budget` those that bring the trained parameters of a layer nearest to it. dropout acts on x. The update's rank
    is rank(A) rank(B): it can be full. Raises ValueError, listing what is possible, for a shape that does not divide.
    """

    targets: tuple[str, ...] = ("q", "v")

    def __post_init__(self):
        super().__post_init__()
        check_targets(self.targets)

    def install(self, model: Decoder) -> None:
        layers = list(target_layers(model, self.targets, self.layers))
        for _, _, base in layers:
            factor_shapes(*base.weight.shape, self.shape, self.budget)
        for parent, name, base in layers:
            setattr(parent, name, KronALinear(base, self))


class _Factors(nn.Module):
    """The two factors: A Kaiming-uniform, B 0, so that the product starts at 0."""

    def add_factors(self, d_out: int, d_in: int, spec: _Kronecker, device) -> None:
        a, b = factor_shapes(d_out, d_in, spec.shape, spec.budget)
        self.A = nn.Parameter(torch.empty(a, device=device))  # float32 even beside a bf16 base
        self.B = nn.Parameter(torch.zeros(b, device=device))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.scale = spec.scale
        self.dropout = nn.Dropout(spec.dropout)

    def delta(self, x: Tensor) -> Tensor:
        return kronecker_linear(self.dropout(x).to(self.A.dtype), self.scale * self.A, self.B)


class KronALinear(_Factors, AdaptedLinear):
    def __init__(self, base: nn.Linear, spec: KronA):
        super().__init__(base)
        self.add_factors(*base.weight.shape, spec, base.weight.device)

    def delta_weight(self) -> Tensor:
        return self.scale * torch.kron(self.A.double(), self.B.double())


@dataclass(frozen=True)
class KronAB(_Kronecker, method="krona-b"):
    """out = FFN(x) + scale (A kron B) x in every block, x the feed-forward layer's normalised input (KronA_B).

    residual=True adds s x with one learned s per block (KronA_B_res); s starts at 0 here so that nothing changes at
    first, where the paper leaves its start open. Trained: a1 a2 + b1 b2 (+ 1) per block. shape, budget, dropout as for
    KronA. It stands beside a nonlinear layer, so it does not merge.
    """

    residual: bool = False

    def install(self, model: Decoder) -> None:
        factor_shapes(model.config.n_embd, model.config.n_embd, self.shape, self.budget)
        for i in blocks_in(self.layers, model.config.n_layer):
            model.blocks[i].mlp = KronAMLP(model.blocks[i].mlp, self, model.config.n_embd)


class KronAMLP(_Factors, AdapterLayer):
    def __init__(self, base: nn.Module, spec: KronAB, d: int):
        super().__init__(base)
        device = next(base.parameters()).device
        self.add_factors(d, d, spec, device)
        self.s = nn.Parameter(torch.zeros((), device=device)) if spec.residual else None

    def delta(self, x: Tensor) -> Tensor:
        update = super().delta(x)
        return update if self.s is None else update + self.s * x
