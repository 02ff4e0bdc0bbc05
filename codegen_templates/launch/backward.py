"""Launches of the backward kernels, for what `api/ops.py` has checked."""

from __future__ import annotations

import torch

from ..kernels.backward_dkdv import (
    attn_bwd_dkdv,
)
from ..kernels.backward_dq import (
    attn_bwd_dq,
)
from ..pattern import BLOCK, HEAD_DIM, ROWS_PER_TILE_FREE, V_HEAD_DIM
from . import arrays, binaries, configs, hopper_backward, hopper_fused, items, told, tuned
from .kept import only_meanwhile, that_was_all
from .outputs import WIDEST
from .requests import MOST_TOGETHER, Requests, arch, in_line, in_units, processors
from .sinks import gradient
from .sums import finish, prepare

Grads = tuple[torch.Tensor, ...]
binaries.use(
    attn_bwd_dq,
    attn_bwd_dkdv,
)


def backward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    dout: torch.Tensor,
    dlse: torch.Tensor | None,
    sinks: torch.Tensor | None = None,
    *,
    layer: int,
    scale: float,
    head_offset: int,
    q_start: int,
    kv_start: int,
    config: configs.Config | None = None,
) -> Grads:
    """dq, dk, dv like q, k, v, from what `launch.forward` returned and the gradients of it; and the sinks' gradient, if
    they are in output and LSE."""
    requests = Requests(q.shape[0], q.shape[2], k.shape[2], q_start, kv_start)
    grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    more = _backward(q, k, v, out, lse, dout, dlse, sinks, *grads, requests, layer, scale, head_offset, config)
    return grads + more


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
    sinks: torch.Tensor | None = None,
    *,
    max_seqlen_q: int,
    max_seqlen_k: int,
    layer: int,
    scale: float,
    head_offset: int,
    config: configs.Config | None = None,
) -> Grads:
    """`backward` of packed sequences."""
    lengths = len(cu_seqlens_q) - 1, max_seqlen_q, max_seqlen_k
    cu_seqlens_q, cu_seqlens_k = in_line(cu_seqlens_q), in_line(cu_seqlens_k)
    packed = {"q_starts": cu_seqlens_q, "kv_starts": cu_seqlens_k, "q_total": len(q), "kv_total": len(k)}
    requests = Requests(*lengths, **packed)
    grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    one = [x.transpose(0, 1)[None] for x in (q, k, v, out)]
    rows = lse[None], dout.transpose(0, 1)[None], None if dlse is None else dlse[None]
    views = [x.transpose(0, 1)[None] for x in grads]
    more = _backward(*one, *rows, sinks, *views, requests, layer, scale, head_offset, config)
    return grads + more


def _backward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    dout: torch.Tensor,
    dlse: torch.Tensor | None,
    sinks: torch.Tensor | None,
    dq: torch.Tensor,
    dk: torch.Tensor,
    dv: torch.Tensor,
    requests: Requests,
    layer: int,
    scale: float,
    head_offset: int,
    config: configs.Config | None,
) -> tuple[torch.Tensor, ...]:
    """Fill dq, dk and dv; all are views [batch, heads, rows, width], and packed ones have one batch. Returns the
    gradient of the sinks, if there are any."""
    many = requests.count > MOST_TOGETHER  # no launch has all: what belongs to none is not written by any
    anything = q.numel() and k.numel() and requests.count and requests.q_len and requests.kv_len
    if many or not anything:
        for grad in (dq, dk, dv):
            grad.zero_()
    if not anything and (sinks is None or not q.numel()):
        return () if sinks is None else (torch.zeros_like(sinks),)
    if not q.is_cuda and q.dtype == torch.bfloat16:  # Triton's interpreter multiplies bfloat16 wrongly
        wide = [torch.empty_like(x, dtype=torch.float32) for x in (dq, dk, dv)]
        tensors = [x.float() for x in (q, k, v, out)]
        of_lse = lse, dout.float(), dlse, sinks
        more = _backward(*tensors, *of_lse, *wide, requests, layer, scale, head_offset, config)
        for grad, x in zip((dq, dk, dv), wide, strict=True):
            grad.copy_(x)
        return more
    dout = dout if dout.stride(-1) == 1 else dout.contiguous()
    dlse = dlse if dlse is None or dlse.stride(-1) == 1 else dlse.contiguous()  # that of a sum has strides of 0
    log_sum, delta = prepare(out, lse, dout, dlse)
    more = () if sinks is None else (gradient(log_sum, delta, sinks),)
    if not anything:
        return more
    heads = layer, head_offset, q.shape[1]
    given = told.Backward(q, k, v, dout, log_sum, delta, requests, heads, scale)
    is_open = config is None and not tuned.tried  # else it is a plain kernel that is asked for
    is_gluon = is_open and hopper_backward.takes(given, (dq, dk, dv))
    is_fused = is_gluon and hopper_fused.wanted(requests) and hopper_fused.fill(given, dq, dk, dv)
    if not is_fused:
        _fill_apart(dq, dk, dv, given, config, is_gluon)
    only_meanwhile(log_sum, delta)
    if not many:
        that_was_all()
    return more


def _fill_apart(
    dq: torch.Tensor,
    dk: torch.Tensor,
    dv: torch.Tensor,
    given: told.Backward,
    config: configs.Config | None,
    is_gluon: bool,
) -> None:
    """Fill dq by one kernel, dk and dv by another."""
    if is_gluon and hopper_backward.counts_dq(given.requests):
        hopper_backward.fill_dq(given, dq)
    else:
        _fill_dq(dq, given, config)
    if is_gluon and hopper_backward.counts_dkdv(given.requests, given.heads):
        hopper_backward.fill_dkdv(given, dk, dv)
    else:
        _fill_dkdv(dk, dv, given, config)


def _fill_dq(dq: torch.Tensor, given: told.Backward, config: configs.Config | None) -> None:
    """Fill dq by the plain kernel: a program for each tile of rows."""
    q, k, v, dout, log_sum, delta, requests, heads, scale = given
    device, shared = q.device, arrays.shared(heads)
    rows = requests.q_len * shared
    own = config or tuned.dq(q)
    own = own or configs.dq(arch(device), WIDEST, q.element_size(), rows, arrays.are_dense(heads))
    block_q, block_h, tiles = requests.tiling(own, shared)
    pattern, entries, groups = arrays.row_groups(heads, requests.rows, requests.columns, block_h, device)
    align, strides = in_units(q.element_size(), told.strides(requests, q, k, v, dout, dq))
    launch = told.dq_launch(device, told.kind(q, requests), (block_q, block_h, own.keys, own.warps, own.stages), align)
    of_batch = None if requests.are_packed else 0
    for some, tensors in requests.launches(q, k, v, dout, dq, log_sum, delta, dim=of_batch):
        pointers = *tensors, groups, pattern, entries, some.q_starts, some.kv_starts
        numbers = *told.lengths(requests, scale), *strides, *told.row_strides(requests, log_sum), some.q_total
        grid = (tiles, len(groups), some.count)
        launch(attn_bwd_dq, grid, pointers, numbers)


def _fill_dkdv(dk: torch.Tensor, dv: torch.Tensor, given: told.Backward, config: configs.Config | None) -> None:
    """Fill dk and dv by the plain kernel, a program for each item of `items.work`: one launch, or one for the near rows
    and one for each stride, which then add to float32. Columns of several items are summed from their parts."""
    q, k, v, dout, log_sum, delta, requests, heads, scale = given
    device, many = q.device, requests.count > MOST_TOGETHER
    own = config or tuned.dkdv(q)
    own = own or configs.dkdv(arch(device), WIDEST, q.element_size(), requests.are_packed)
    pattern, entries, places = arrays.column_arrays(arrays.present(*heads), requests.rows, requests.columns, device)
    keys = own.keys if ROWS_PER_TILE_FREE else min(own.keys, BLOCK)
    # addresses within a tile have 32 bits: columns too far apart do not share one
    if keys * items.widest() * max(x.stride(2) for x in (k, v, dk, dv)) >= 1 << 31:
        keys = min(keys, BLOCK)
    columns, many_processors = (requests.kv_start // BLOCK, requests.columns), processors(device)
    about = heads[1], places, requests.rows, columns, keys, requests.count, many_processors, requests.are_packed
    work = items.work(arrays.present(*heads), *about, False, None, device)
    sums = [dk, dv]
    if (len(work.launches) > 1 and k.dtype != torch.float32) or not told.lie_alike(dk, dv):  # launches add to them
        made = torch.zeros if many else torch.empty
        sums = [made(x.shape, dtype=torch.float32, device=device) for x in sums]
    size = BLOCK * (HEAD_DIM + V_HEAD_DIM)  # of dK and dV of a column
    parts = torch.empty(requests.count, work.slots, size, dtype=torch.float32, device=device)
    if HEAD_DIM == V_HEAD_DIM:
        align, strides = in_units(q.element_size(), told.strides(requests, q, k, v, dout, sums[0]))
    else:
        align, strides = in_units(q.element_size(), told.strides(requests, q, k, v, dout))
        strides += [stride // HEAD_DIM for stride in told.strides(requests, sums[0])]
    tile = own.rows, keys, own.warps, own.stages
    of_batch = None if requests.are_packed else 0
    for table, *rows_of in work.launches:
        launch = told.dkdv_launch(device, (*told.kind(q, requests), sums[0].dtype), tile, align, *rows_of)
        for some, tensors in requests.launches(q, k, v, dout, *sums, log_sum, delta, parts, dim=of_batch):
            pointers = *tensors, table, work.members, pattern, entries, some.q_starts, some.kv_starts
            sizes = table.stride(0), work.members.stride(0), work.slots, some.kv_total
            grid = (len(table), 1, some.count)
            numbers = *told.lengths(requests, scale), *strides, *told.row_strides(requests, log_sum), *sizes
            launch(attn_bwd_dkdv, grid, pointers, numbers)
    finish(parts, work, sums, (dk, dv), requests)
