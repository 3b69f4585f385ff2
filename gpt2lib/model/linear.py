"""The linear layer of GPT-2 and Llama, by whichever product is fast for its rows on this processor."""

import platform
import time
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2lib.common.machine import wait

FEW_ROWS = 64  # beyond, MKL takes the same time either way


class Linear(nn.Linear):
    """nn.Linear by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_in] -> [..., d_out]"""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b: [..., d_in] -> [..., d_out].

    F.linear, but for float32 on a CPU. There PyTorch multiplies by MKL, which uses half the width of an AMD processor's
    AVX-512; oneDNN, which PyTorch brings along, uses all of it. Elsewhere few rows are multiplied as W x^T when
    nothing is trained, made up to a multiple of 8: so the rows lie side by side in the vector registers, which takes
    half to two thirds of the time of F.linear.
    """
    rows = x.shape[:-1].numel()
    float32 = x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu"
    if rows < 2 or not float32 or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    if onednn_is_faster() and _is_plain(x, weight, bias):
        return _ByOneDNN.apply(x, weight, bias)
    if torch.is_grad_enabled() or rows > FEW_ROWS:
        return F.linear(x, weight, bias)
    columns = F.pad(x.reshape(rows, -1), (0, 0, 0, -rows % 8)).T  # [d_in, rows and padding]
    y = (weight @ columns)[:, :rows].T  # [rows, d_out]
    return (y.contiguous() if bias is None else y + bias).reshape(*x.shape[:-1], -1)


def matmul_peak(device: torch.device, dtype: torch.dtype, sizes: tuple[int, ...] = (1024, 2048, 4096)) -> float:
    """FLOP/s of the fastest `linear` of two square matrices."""
    peak = 0.0
    for n in sizes:
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        for _ in range(6):
            wait()
            began = time.perf_counter()
            linear(a, b)
            wait()
            peak = max(peak, 2 * n**3 / (time.perf_counter() - began))
    return peak


@cache
def onednn_is_faster() -> bool:
    """Whether this is an AMD processor with AVX-512, and PyTorch a build with oneDNN's linear layer."""
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()
    if not wide or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    try:
        maker = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        maker = platform.processor()
    return "AuthenticAMD" in maker


def _is_plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether oneDNN's operation takes these; it checks little itself, and knows nothing of torch.func and tracing."""
    fits = x.layout == weight.layout == torch.strided and weight.dim() == 2 and x.shape[-1] == weight.shape[1] > 0
    same = bias is None or (bias.shape == weight.shape[:1] and bias.dtype == torch.float32)
    transformed = torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    return fits and same and not transformed and not torch.jit.is_tracing()


class _ByOneDNN(torch.autograd.Function):
    """F.linear and its gradients by oneDNN's product, which has none of its own."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        of_x, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)  # a frozen layer needs no x
        bias = None if bias is None else bias.contiguous()  # it would be read as if it were
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        flat = gradient.flatten(0, -2)  # [rows, d_out]
        return (
            linear(gradient, weight.T) if of_x else None,
            linear(flat.T, x.flatten(0, -2).T) if of_weight else None,
            flat.sum(0) if of_bias else None,
        )
