"""Launches around those of the backward products: what each row's softmax subtracts, and sums of several launches."""

from __future__ import annotations

from functools import cache

import torch

from ..kernels.backward_prepare import (
    attn_bwd_prepare,
)
from ..kernels.backward_sum import (
    attn_bwd_round,
    attn_bwd_sum,
)
from ..pattern import BLOCK, HEAD_DIM, V_HEAD_DIM
from . import binaries, items
from .kept import Launch, only_meanwhile
from .requests import Requests, in_units

PREPARED_ROWS = 16
SUMMED_KEYS = 16
ROUNDED_ROWS = 16
binaries.use(
    attn_bwd_prepare,
    attn_bwd_sum,
    attn_bwd_round,
)


def prepare(
    out: torch.Tensor, lse: torch.Tensor, dout: torch.Tensor, dlse: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """LSE as weights need it, and what each row's softmax subtracts: both [batch, heads, rows] float32."""
    batch, heads, rows, _ = out.shape
    log_sum, delta = (torch.empty(batch, heads, rows, dtype=torch.float32, device=out.device) for _ in range(2))
    align, strides = in_units(out.element_size(), [*out.stride()[:3], *dout.stride()[:3]])
    more = (0, 0) if dlse is None else dlse.stride()[:2]
    launch = _prepare_launch(out.device, (out.dtype, lse.dtype, None if dlse is None else dlse.dtype), align)
    numbers = rows, *strides, *lse.stride()[:2], *more
    for some, tensors in Requests(batch, rows, 0).launches(out, dout, lse, dlse, log_sum, delta, dim=0):
        grid = (-(-rows // PREPARED_ROWS), heads, some.count)
        launch(attn_bwd_prepare, grid, tensors, numbers)
    return log_sum, delta


@cache
def _prepare_launch(device: torch.device, dtypes: tuple[torch.dtype | None, ...], align: int) -> Launch:
    return Launch(device, BLOCK_M=PREPARED_ROWS, ALIGN=align, num_warps=4, enable_fp_fusion=True)


def finish(
    parts: torch.Tensor,
    work: items.Work,
    sums: list[torch.Tensor],
    grads: tuple[torch.Tensor, torch.Tensor],
    requests: Requests,
) -> None:
    """Fill dk and dv, `grads`, from what the items of `work` have left in `sums`, which may be the same tensors, and
    `parts`."""
    if work.slots:
        add_parts(parts, work, sums, requests)
    only_meanwhile(parts)
    if sums[0] is not grads[0]:
        only_meanwhile(*sums)
        for x, y in zip(sums, grads, strict=True):
            rounded(x, y)


def add_parts(parts: torch.Tensor, work: items.Work, sums: list[torch.Tensor], requests: Requests) -> None:
    """Add what several items have of a column, in order. Packed sequences have no parts."""
    strides = list(sums[0].stride()[:3])
    if HEAD_DIM == V_HEAD_DIM:
        align, strides = in_units(sums[0].element_size(), strides)
    else:
        align, strides = 1, [stride // HEAD_DIM for stride in strides]
    width = min(BLOCK, SUMMED_KEYS)
    launch = _sum_launch(parts.device, sums[0].dtype, width, align)
    numbers = requests.kv_start, requests.kv_start + requests.kv_len, work.slots, *strides
    for some, (slots, *some_sums) in requests.launches(parts, *sums, dim=0):
        grid = (len(work.columns), BLOCK // width, some.count)
        given = slots, work.columns, *some_sums
        launch(attn_bwd_sum, grid, given, numbers)


@cache
def _sum_launch(device: torch.device, dtype: torch.dtype, width: int, align: int) -> Launch:
    return Launch(device, BLOCK_N=width, ALIGN=align, num_warps=4, enable_fp_fusion=True)


def rounded(x: torch.Tensor, y: torch.Tensor) -> None:
    """Write x, float32, into y, of its shape [batch, heads, rows, width]."""
    batch, heads, rows, width = x.shape
    tiles = -(-rows // ROUNDED_ROWS)
    launch = _round_launch(x.device, y.dtype, width == V_HEAD_DIM)
    numbers = rows, tiles, *x.stride()[:3], *y.stride()[:3]
    launch(attn_bwd_round, (tiles * batch, heads, 1), (x, y), numbers)


@cache
def _round_launch(device: torch.device, _dtype: torch.dtype, is_v: bool) -> Launch:
    return Launch(device, IS_V=is_v, ROWS=ROUNDED_ROWS, num_warps=4, enable_fp_fusion=True)
