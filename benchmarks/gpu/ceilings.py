"""What the machine does at best: copying, multiplying, and dense causal attention by each of SDPA's backends."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.device import Device, rate

Row = dict[str, object]
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,  # FlashAttention-2
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def measure(device: Device, *, what: str, head_dim: int = 128, backend: str = "flash", **_: object) -> Iterator[Row]:
    """The rows of one cell: bytes or floating point operations a second."""
    if what == "dense":
        yield from _dense(device, head_dim, backend)
    else:
        yield {"copy": _copy, "matrix product": _product}[what](device)


def _copy(device: Device) -> Row:
    """From memory to memory, bytes read and bytes written counted."""
    x = torch.empty(1 << (16 if device.toy else 31), dtype=torch.int8, device=device.name).random_()
    y = torch.empty_like(x)
    [times] = device.alternate({"": lambda: y.copy_(x)}).values()
    return {"tb_per_s": rate(2 * x.numel(), times.median), **times.row()}


def _product(device: Device) -> Row:
    size = 64 if device.toy else 8192
    a, b = (device.random(size, size) for _ in range(2))
    [times] = device.alternate({"": lambda: a @ b}).values()
    return {"tflops": rate(2 * size**3, times.median), **times.row()}


def _dense(device: Device, head_dim: int, backend: str) -> Iterator[Row]:
    """Forward and backward of one sequence length, over the causal half of the pairs."""
    batch, heads, tokens = (1, 2, 64) if device.toy else (4, 16, 16384)
    shape = batch, heads, tokens, head_dim
    q, k, v = (device.random(*shape).requires_grad_() for _ in range(3))
    gradient = torch.randn_like(q)
    flops = 4 * batch * heads * (tokens * (tokens + 1) / 2) * head_dim
    with sdpa_kernel(BACKENDS[backend]):
        with torch.no_grad():
            [times] = device.alternate({"": lambda: causal(q, k, v)}).values()
        yield {"direction": "forward", "tflops": rate(flops, times.median), **times.row()}
        out = causal(q, k, v)
        call = {"": lambda: torch.autograd.grad(out, (q, k, v), gradient, retain_graph=True)}
        [times] = device.alternate(call).values()
        yield {"direction": "backward", "tflops": rate(2.5 * flops, times.median), **times.row()}


def causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Dense causal attention by the backend that is chosen; heads may share keys and values."""
    grouped = q.shape[1] != k.shape[1]
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)


def flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Dense causal attention by FlashAttention-2."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return causal(q, k, v)
