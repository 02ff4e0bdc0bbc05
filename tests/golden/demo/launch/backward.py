"""Launches of the backward kernels, for what `api/ops.py` has checked."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from ..kernels.backward_dkdv import (
    attn_bwd_dkdv_demo,
)
from ..kernels.backward_dq import (
    attn_bwd_dq_demo,
)
from ..kernels.backward_prepare import (
    attn_bwd_prepare_demo,
)
from ..kernels.row_map import STRIDES
from ..pattern import BLOCK, FORM, HEAD_DIM, ROWS_PER_TILE_FREE
from . import arrays, binaries, configs, tuned
from .kept import Launch
from .requests import LOG2_E, MOST_TOGETHER, Requests, arch, in_line, in_units, precision

PREPARED_ROWS = 16
Grads = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
binaries.use(
    attn_bwd_prepare_demo,
    attn_bwd_dq_demo,
    attn_bwd_dkdv_demo,
)


def backward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    dout: torch.Tensor,
    dlse: torch.Tensor | None,
    *,
    layer: int,
    scale: float,
    head_offset: int,
    q_start: int,
    kv_start: int,
    config: configs.Config | None = None,
) -> Grads:
    """dq, dk, dv like q, k, v, from what `launch.forward` returned and the gradients of it."""
    requests = Requests(q.shape[0], q.shape[2], k.shape[2], q_start, kv_start)
    grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    _backward(q, k, v, out, lse, dout, dlse, *grads, requests, layer, scale, head_offset, config)
    return grads


def backward_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    dout: torch.Tensor,
    dlse: torch.Tensor | None,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    layer: int,
    scale: float,
    head_offset: int,
    config: configs.Config | None = None,
) -> Grads:
    """Likewise of packed sequences."""
    lengths = len(cu_seqlens_q) - 1, max_seqlen_q, max_seqlen_k
    cu_seqlens_q, cu_seqlens_k = in_line(cu_seqlens_q), in_line(cu_seqlens_k)
    packed = {"q_starts": cu_seqlens_q, "kv_starts": cu_seqlens_k, "q_total": len(q), "kv_total": len(k)}
    requests = Requests(*lengths, **packed)
    grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    one = [x.transpose(0, 1)[None] for x in (q, k, v, out)]
    rows = lse[None], dout.transpose(0, 1)[None], None if dlse is None else dlse[None]
    views = [x.transpose(0, 1)[None] for x in grads]
    _backward(*one, *rows, *views, requests, layer, scale, head_offset, config)
    return grads


def _backward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    dout: torch.Tensor,
    dlse: torch.Tensor | None,
    dq: torch.Tensor,
    dk: torch.Tensor,
    dv: torch.Tensor,
    requests: Requests,
    layer: int,
    scale: float,
    head_offset: int,
    config: configs.Config | None,
) -> None:
    """Fill dq, dk and dv; all are views [batch, heads, rows, head_dim], and packed ones have one batch."""
    many = requests.count > MOST_TOGETHER  # no launch has all: what belongs to none is not written by any
    anything = q.numel() and k.numel() and requests.count and requests.q_len and requests.kv_len
    if many or not anything:
        for grad in (dq, dk, dv):
            grad.zero_()
    if not anything:
        return
    if not q.is_cuda and q.dtype == torch.bfloat16:  # Triton's interpreter multiplies bfloat16 wrongly
        wide = [torch.empty_like(x, dtype=torch.float32) for x in (dq, dk, dv)]
        tensors = [x.float() for x in (q, k, v, out)]
        _backward(*tensors, lse, dout.float(), dlse, *wide, requests, layer, scale, head_offset, config)
        for grad, x in zip((dq, dk, dv), wide, strict=True):
            grad.copy_(x)
        return
    dout = dout if dout.stride(-1) == 1 else dout.contiguous()
    log_sum, delta = _prepare(out, lse, dout, dlse)
    heads, device = (layer, head_offset, q.shape[1]), q.device
    of_batch = None if requests.are_packed else 0
    lengths = scale * LOG2_E, requests.q_len, requests.kv_len, requests.q_start, requests.kv_start
    row_strides = 0 if requests.are_packed else log_sum.stride(0), log_sum.stride(1)
    kind = q.dtype, tuple(x if x is None else x.dtype for x in (requests.q_starts, requests.kv_starts)), precision(q)

    shared = arrays.shared(heads)
    rows = requests.q_len * shared
    own = config or tuned.dq(q)
    own = own or configs.dq(arch(device), HEAD_DIM, q.element_size(), rows, arrays.are_dense(heads))
    block_q, block_h, tiles = requests.tiling(own, shared)
    pattern, entries, groups = arrays.row_groups(heads, requests.rows, requests.columns, block_h, device)
    align, strides = in_units(q.element_size(), _strides(requests, q, k, v, dout, dq))
    launch = _dq_launch(device, kind, (block_q, block_h, own.keys, own.warps, own.stages), align)
    for some, tensors in requests.launches(q, k, v, dout, dq, log_sum, delta, dim=of_batch):
        given = *tensors, groups, pattern, entries, some.q_starts, some.kv_starts
        numbers = *lengths, *strides, *row_strides, some.q_total
        grid = (tiles, len(groups), some.count)
        launch(attn_bwd_dq_demo, grid, given, numbers)

    own = config or tuned.dkdv(q)
    own = own or configs.dkdv(arch(device), HEAD_DIM, q.element_size(), requests.are_packed)
    keys = own.keys if ROWS_PER_TILE_FREE else min(own.keys, BLOCK)
    sums = [dk, dv]
    if (STRIDES and k.dtype != torch.float32) or dk.stride() != dv.stride():  # several rounds add to them
        made = torch.zeros if many else torch.empty
        sums = [made(k.shape, dtype=torch.float32, device=device) for _ in sums]
    pattern, entries, rounds = arrays.rounds(heads, requests.rows, requests.columns, device)
    align, strides = in_units(q.element_size(), _strides(requests, q, k, v, dout, sums[0]))
    apart = max(strides[n] for n in (5, 8, 14)) * align  # numbers between rows of k, v and their gradients
    present = -(-requests.kv_len // BLOCK)  # columns
    for number, every, members in rounds:
        tokens = -(-present // every) * BLOCK
        # addresses within a tile have 32 bits: columns too far apart do not share one
        width = keys if keys * every * apart < 1 << 31 else min(keys, BLOCK)
        launch = _dkdv_launch(device, (*kind, sums[0].dtype), (own.rows, width, own.warps, own.stages), align, number)
        for some, tensors in requests.launches(q, k, v, dout, *sums, log_sum, delta, dim=of_batch):
            given = *tensors, members, pattern, entries, some.q_starts, some.kv_starts
            numbers = *lengths, *strides, *row_strides, members.stride(0), some.kv_total
            grid = (-(-tokens // width), len(members), some.count)
            launch(attn_bwd_dkdv_demo, grid, given, numbers)
    if sums[0] is not dk:
        dk.copy_(sums[0])
        dv.copy_(sums[1])


def _strides(requests: Requests, *tensors: torch.Tensor) -> list[int]:
    """Of batch, heads and rows; of packed sequences every one sees all rows."""
    if requests.are_packed:
        return [stride for x in tensors for stride in (0, x.stride(1), x.stride(2))]
    return [stride for x in tensors for stride in x.stride()[:3]]


@cache
def _dq_launch(device: torch.device, kind: tuple[Any, ...], tile: tuple[int, int, int, int, int], align: int) -> Launch:
    block_q, block_h, block_n, warps, stages = tile
    return Launch(
        device,
        BLOCK_Q=block_q,
        BLOCK_H=block_h,
        BLOCK_N=block_n,
        ALIGN=align,
        IS_PACKED=kind[1][0] is not None,
        IS_LOOKED_UP=FORM == "table",
        STAGES=stages,
        PRECISION=kind[2],
        num_warps=warps,
        num_stages=stages,
        enable_fp_fusion=True,
    )


@cache
def _dkdv_launch(
    device: torch.device, kind: tuple[Any, ...], tile: tuple[int, int, int, int], align: int, number: int
) -> Launch:
    block_m, block_n, warps, stages = tile
    return Launch(
        device,
        ROUND=number,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        ALIGN=align,
        IS_PACKED=kind[1][0] is not None,
        IS_LOOKED_UP=FORM == "table" and not number,
        STAGES=stages,
        PRECISION=kind[2],
        num_warps=warps,
        num_stages=stages,
        enable_fp_fusion=True,
    )


def _prepare(
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
        launch(attn_bwd_prepare_demo, grid, tensors, numbers)
    return log_sum, delta


@cache
def _prepare_launch(device: torch.device, dtypes: tuple[torch.dtype | None, ...], align: int) -> Launch:
    return Launch(device, BLOCK_M=PREPARED_ROWS, ALIGN=align, num_warps=4, enable_fp_fusion=True)
