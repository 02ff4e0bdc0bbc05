"""Launches for sinks: they are put into what other launches have made."""

from __future__ import annotations

from functools import cache

import torch

from ..kernels.sinks import (
    attn_bwd_sinks,
    attn_sinks,
)
from . import binaries
from .kept import Launch
from .requests import in_line, in_units

ROWS, SUMMED_ROWS = 16, 1024  # of a program at a time
binaries.use(
    attn_sinks,
    attn_bwd_sinks,
)


def put(
    out: torch.Tensor, lse: torch.Tensor, sinks: torch.Tensor, starts: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and LSE of a softmax in whose sum exp(sinks) stands too, in the memory of those of one without: [batch,
    heads, rows, width] and [batch, heads, rows], or packed [rows, heads, width] and [heads, rows]. `starts` [requests +
    1] says where packed requests begin; None: no row is outside of them."""
    if not out.numel():
        return out, lse
    sinks = in_line(sinks)
    x, sums = (out, lse) if out.dim() == 4 else (out.transpose(0, 1)[None], lse[None])
    batch, heads, rows, _ = x.shape
    tiles = -(-rows // ROWS)
    align, strides = in_units(x.element_size(), list(x.stride()[:3]))
    starts = None if starts is None else in_line(starts)
    launch = _launch(x.device, (x.dtype, sinks.dtype, None if starts is None else starts.dtype), align)
    numbers = 0 if starts is None else len(starts) - 1, rows, tiles, *strides, *sums.stride()[:2]
    grid, tensors = (tiles * batch, heads, 1), (x, sums, sinks, starts)
    launch(attn_sinks, grid, tensors, numbers)
    return out, lse


def gradient(log_sum: torch.Tensor, delta: torch.Tensor, sinks: torch.Tensor) -> torch.Tensor:
    """The gradient of sinks, from what is known of each row [batch, heads, rows]."""
    batch, heads, rows = log_sum.shape
    made = torch.empty(sinks.shape, dtype=sinks.dtype, device=sinks.device)
    launch = _summing(sinks.device, sinks.dtype)
    grid, tensors = (heads, 1, 1), (log_sum, delta, in_line(sinks), made)
    launch(attn_bwd_sinks, grid, tensors, (batch, rows))
    return made


@cache
def _launch(device: torch.device, _dtypes: tuple[torch.dtype | None, ...], align: int) -> Launch:
    return Launch(device, anywhere=2, ROWS=ROWS, ALIGN=align, num_warps=4, enable_fp_fusion=True)


@cache
def _summing(device: torch.device, _dtype: torch.dtype) -> Launch:
    return Launch(device, anywhere=2, ROWS=SUMMED_ROWS, num_warps=4, enable_fp_fusion=True)
