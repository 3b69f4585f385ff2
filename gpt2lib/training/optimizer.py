"""AdamW (Loshchilov and Hutter 2019) and, for pretraining, Muon (Jordan et al. 2024), over all parameters at once."""

import torch
from torch.optim import Optimizer


class AdamW(Optimizer):
    """Adam with decoupled weight decay.

    For each parameter p with gradient g at step t:
        m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g^2
        p = p - lr sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)      (Kingma and Ba 2015, end of section 2)
        p = p - lr * weight_decay * p                                     (after the update)
    The efficient form of the bias correction leaves eps uncorrected, so it weighs more in the first steps than in
    torch.optim.AdamW: 1 / sqrt(1 - b2) times as much in the very first. correct_bias=False drops the two corrections,
    as BERT did.
    Raises ValueError for hyper-parameters out of range and, at the first step, for a sparse gradient.
    """

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0, correct_bias=True):
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, correct_bias=correct_bias)
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict) -> None:
        """Add a group of parameters; its settings are checked like those of the constructor."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for name in ("lr", "eps", "weight_decay"):
            if not 0 <= group[name] < float("inf"):
                raise ValueError(f"{name} must be a number of at least 0, not {group[name]!r}")
        if len(group["betas"]) != 2 or not all(0 <= beta < 1 for beta in group["betas"]):
            raise ValueError(f"betas must be two numbers in [0, 1), not {group['betas']!r}")

    @torch.no_grad()
    def step(self, closure=None):
        """Update every parameter that has a gradient; returns the closure's loss, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            # parameters that joined later (or had no gradient before) count their own steps
            by_step: dict[tuple, list] = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.is_sparse:
                    raise ValueError(
                        f"AdamW needs dense gradients; a parameter of shape {list(p.shape)} has a sparse one"
                    )
                state = self.state[p]
                if not state:
                    state.update(step=0, **{name: torch.zeros_like(p) for name in self._moments(group)})
                state["step"] += 1
                by_step.setdefault((state["step"], p.device, p.dtype), []).append(p)
            for (t, _, _), params in by_step.items():
                self._update(group, t, params)
        return loss

    def _moments(self, group: dict) -> tuple[str, ...]:
        """What is kept of each parameter's gradients, in its own shape."""
        return ("exp_avg", "exp_avg_sq")

    def _update(self, group: dict, t: int, params: list) -> None:
        b1, b2 = group["betas"]
        grads = [p.grad for p in params]
        m = [self.state[p]["exp_avg"] for p in params]
        v = [self.state[p]["exp_avg_sq"] for p in params]
        torch._foreach_lerp_(m, grads, 1 - b1)
        torch._foreach_mul_(v, b2)
        torch._foreach_addcmul_(v, grads, grads, 1 - b2)
        step_size = group["lr"]
        if group["correct_bias"]:
            step_size *= (1 - b2**t) ** 0.5 / (1 - b1**t)
        denominator = torch._foreach_sqrt(v)
        torch._foreach_add_(denominator, group["eps"])
        torch._foreach_addcdiv_(params, m, denominator, -step_size)
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])


class Muon(AdamW):
    """Muon for the hidden matrices, AdamW for everything else (embeddings, norms, biases).

    For each matrix W: [d_out, d_in] with gradient G:
        M = mu M + G          U = orthogonalise(G + mu M)                 (Nesterov's momentum)
        W = W - lr 0.2 sqrt(max(d_out, d_in)) U, then decoupled weight decay
    The factor gives the update the size that AdamW's has, so one lr serves both (Liu et al. 2025, arXiv 2502.16982,
    equation 4). matrices, others: iterables of parameters; the other arguments are AdamW's, with Muon's usual betas.
    Raises ValueError for a matrix that has not two dimensions.
    """

    def __init__(self, matrices, others, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, momentum=0.95):
        matrices = list(matrices)
        if odd := [list(p.shape) for p in matrices if p.dim() != 2]:
            raise ValueError(f"Muon orthogonalises matrices; give parameters of shape {odd[0]} to `others`")
        groups = [{"params": matrices, "momentum": momentum}, {"params": list(others), "momentum": None}]
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _moments(self, group: dict) -> tuple[str, ...]:
        return super()._moments(group) if group["momentum"] is None else ("exp_avg",)

    def _update(self, group: dict, t: int, params: list) -> None:
        if group["momentum"] is None:
            return super()._update(group, t, params)
        by_shape: dict[torch.Size, list] = {}
        for p in params:
            by_shape.setdefault(p.shape, []).append(p)
        for (d_out, d_in), same in by_shape.items():
            grads, moments = [p.grad for p in same], [self.state[p]["exp_avg"] for p in same]
            torch._foreach_mul_(moments, group["momentum"])
            torch._foreach_add_(moments, grads)
            ahead = torch.stack(torch._foreach_add(grads, moments, alpha=group["momentum"]))
            updates = orthogonalise(ahead).unbind()  # matrices of one shape in one batched product
            torch._foreach_add_(same, updates, alpha=-group["lr"] * 0.2 * max(d_out, d_in) ** 0.5)
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])


def orthogonalise(g: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """About U V^T of the singular value decomposition U S V^T of each matrix: [n, d_out, d_in] -> the same shape.

    Newton-Schulz iteration with Jordan's coefficients, which bring all singular values but tiny ones near 1.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = g.shape[-2] <= g.shape[-1]
    x = g if wide else g.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT
