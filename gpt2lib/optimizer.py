"""AdamW (Loshchilov and Hutter 2019), vectorised over all parameters with torch._foreach."""

import torch
from torch.optim import Optimizer


class AdamW(Optimizer):
    """Adam with decoupled weight decay.

    For each parameter p with gradient g at step t:
        m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g^2
        p = p - lr sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)      (Kingma and Ba 2015, end of section 2)
        p = p - lr * weight_decay * p                                     (after the update)
    The efficient form of the bias correction leaves eps uncorrected, so it weighs a little more in the first steps
    than in torch.optim.AdamW. correct_bias=False drops the two corrections, as BERT did.
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
                    state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
                state["step"] += 1
                by_step.setdefault((state["step"], p.device, p.dtype), []).append(p)
            for (t, _, _), params in by_step.items():
                self._update(group, t, params)
        return loss

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
