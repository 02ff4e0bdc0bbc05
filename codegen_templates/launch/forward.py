"""Launches of the kernels, for what `api/ops.py` has checked."""

from __future__ import annotations

from functools import wraps

import torch

from ..kernels.forward import (
    attn_fwd,
)
from ..pattern import V_HEAD_DIM
from . import arrays, binaries, configs, hopper, sharing, told, tuned
from .configs import Config
from .kept import that_was_all
from .outputs import WIDEST, like_output
from .parts import Splits, combine, merges, room, room_to_merge, splits_of
from .requests import (
    LOG2_E,
    MOST_TOGETHER,
    Requests,
    arch,
    in_line,
    in_units,
    packed_strides,
    page_strides,
    precision,
    query_starts,
)

binaries.use(
    attn_fwd,
)


def widened(launch):  # type: ignore[no-untyped-def]
    """On the CPU bfloat16 is computed as float32: Triton's interpreter multiplies bfloat16 wrongly."""

    @wraps(launch)
    def widely(q, k, v, *args, **options):  # type: ignore[no-untyped-def]
        if q.is_cuda or q.dtype != torch.bfloat16:
            return launch(q, k, v, *args, **options)
        out, lse = launch(q.float(), k.float(), v.float(), *args, **options)
        return out.to(q.dtype), lse

    return widely


@widened
def forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    layer: int,
    scale: float,
    head_offset: int,
    q_start: int,
    kv_start: int,
    config: Config | None = None,
    splits: Splits | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [batch, heads, q_len, v_head_dim] and LSE [batch, heads, q_len], fp32, natural logarithm.

    The first query stands at position q_start, the first key at kv_start, a multiple of the block. splits: programs
    that share the keys of a tile; None: several where there are few queries.
    """
    out = like_output(q)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    requests = Requests(q.shape[0], q.shape[2], k.shape[2], q_start, kv_start)
    q, scale = upright(q, scale)
    strides = [*q.stride()[:3], *k.stride()[:3], *v.stride()[:3]]
    _forward(q, k, v, out, lse, strides, requests, layer, scale, head_offset, config, splits=splits)
    that_was_all()
    return out, lse


@widened
def forward_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    layer: int,
    scale: float,
    head_offset: int,
    config: Config | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [total_q, heads, v_head_dim] and LSE [heads, total_q] of packed sequences, int32 [requests + 1]."""
    count = len(cu_seqlens_q) - 1
    cu_seqlens_q, cu_seqlens_k = in_line(cu_seqlens_q), in_line(cu_seqlens_k)
    out, lse = room(q, count, max_seqlen_q)
    lengths = count, max_seqlen_q, max_seqlen_k
    requests = Requests(*lengths, q_starts=cu_seqlens_q, kv_starts=cu_seqlens_k, q_total=len(q))
    q, scale = upright(q, scale)
    strides = [*packed_strides(q), *packed_strides(k), *packed_strides(v)]
    _forward(q, k, v, out, lse, strides, requests, layer, scale, head_offset, config)
    if max_seqlen_q and count <= MOST_TOGETHER:  # else rows were filled before
        that_was_all()
    return out, lse


@widened
def forward_paged(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    *,
    max_q_len: int,
    layer: int,
    scale: float,
    head_offset: int,
    config: Config | None = None,
    splits: Splits | None = None,
    launches: int | None = None,
    are_some_left: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [total_q, heads, v_head_dim] and LSE [heads, total_q]; caches [pages, page_size, kv_heads, their width].

    Short queries take one tile with all heads of a KV head that are alike, and several programs share their keys. The
    last of them merges what they have, or a second launch; `launches` asks for 1 or 2. are_some_left: whether some
    queries may be of no request.
    """
    count, page, (rows, heads, _) = seq_lens.shape[0], k_cache.shape[1], q.shape
    kv_len = block_table.shape[1] * page  # the lengths are known to the device alone
    lists = [in_line(x) for x in (query_start_loc, seq_lens, block_table)]
    packed = *lists, rows if are_some_left else 0
    requests = Requests(count, max_q_len, kv_len, 0, 0, *packed)
    out, lse = room(q, count, max_q_len)
    present = layer, head_offset, heads
    if splits is None and max_q_len * arrays.shared(present) <= configs.FEW_ROWS:
        splits = splits_of(present, count, max_q_len, kv_len, q.device)
    if not count or not max_q_len:
        return out, lse
    q, scale = upright(q, scale)
    strides = [*packed_strides(q), *page_strides(k_cache), *page_strides(v_cache)]
    tensors, how = (q, k_cache, v_cache, out, lse), {"page": page, "splits": splits, "launches": launches}
    _forward(*tensors, strides, requests, layer, scale, head_offset, config, **how)
    if count <= MOST_TOGETHER:  # else rows were filled before
        that_was_all()
    return out, lse


def decode(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    *,
    layer: int,
    scale: float,
    head_offset: int,
    config: Config | None = None,
    splits: Splits | None = None,
    launches: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [requests, q_len, heads, v_head_dim] and LSE [requests, heads, q_len] of the newest q_len tokens."""
    count, q_len, heads, head_dim = q.shape
    starts = query_starts(count, q_len, q.device)
    options = {"layer": layer, "scale": scale, "head_offset": head_offset, "config": config}
    options |= {"splits": splits, "launches": launches, "are_some_left": False}
    tokens = q.reshape(count * q_len, heads, head_dim)
    out, lse = forward_paged(tokens, k_cache, v_cache, block_table, seq_lens, starts, max_q_len=q_len, **options)
    return out.view(count, q_len, heads, V_HEAD_DIM), lse.view(heads, count, q_len).transpose(0, 1)


def upright(q: torch.Tensor, scale: float) -> tuple[torch.Tensor, float]:
    """(q, scale) that give the same scores with a scale of 0 or more, so that the largest score is also the largest
    after scaling."""
    return (q, scale) if scale >= 0 else (-q, -scale)


def _forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    strides: list[int],
    requests: Requests,
    layer: int,
    scale: float,
    head_offset: int,
    config: Config | None,
    *,
    page: int = 0,
    splits: Splits | None = None,
    launches: int | None = None,
) -> None:
    """Launch the kernel. strides: of batch or pages, heads and rows of q, k and v. splits: programs that share the keys
    of a tile; None: several over pages, or where there are few rows and no second launch is needed."""
    if not requests.count or not requests.q_len:
        return
    device, heads = q.device, (layer, head_offset, q.shape[1])
    is_open = config is None and not tuned.tried and splits in (None, 1)  # else it is a plain kernel that is asked for
    if is_open and hopper.takes(q, k, v, out, requests):
        return hopper.forward(told.Rows(q, k, v, out, lse, requests, heads, scale))
    rows = requests.q_len * arrays.shared(heads)
    config = config or tuned.forward(q, rows) or configs.forward(arch(device), WIDEST, q.element_size(), rows)
    is_chosen = splits is None
    if splits is None:
        sizes = requests.count, requests.q_len, requests.kv_len
        splits = splits_of(heads, *sizes, device) if rows <= configs.FEW_ROWS or page else 1
    together = sharing.most(heads) if isinstance(splits, tuple) else arrays.shared(heads)
    block_q, block_h, tiles = requests.tiling(config, together)
    of_tile = block_q * min(block_h, together)  # its rows that are any head's
    if is_chosen and not page and splits != 1 and isinstance(splits, int) and not merges(device, of_tile, splits):
        splits = 1
    spans = requests.rows, requests.columns, block_h, tiles
    (groups, shares, *columns), splits, width, merged = sharing.programs(heads, *spans, splits, device)
    if launches is None:
        launches = 1 if splits == 1 or merges(device, of_tile, splits) else 2
    parts, part_strides = (None, None, None), (0, 0)
    found, sums = out, lse  # what this launch makes
    if launches > 1:
        found, sums = room(q, requests.count, requests.q_len, splits)
        part_strides = found.stride(0), sums.stride(0)
    elif splits > 1:
        parts = room_to_merge(merged * min(requests.count, MOST_TOGETHER), splits, of_tile, device)
    of_found = packed_strides(found) if requests.are_packed else found.stride()[:3]
    align, strides = in_units(q.element_size(), [*strides, *of_found])
    lists = (requests.q_starts, requests.kv_starts, requests.pages) if requests.are_packed else ()
    tile = block_q, block_h, config.keys, config.warps, config.stages, of_tile if parts[0] is not None else 0
    dtypes = q.dtype, found.dtype, *(x if x is None else x.dtype for x in lists)
    launch = told.forward_launch(device, dtypes, tile, page, align, precision(q), shares is not None)
    rest = part_strides[0], 0 if requests.are_packed else sums.stride(0), sums.stride(-2), part_strides[1]
    pages = 0 if requests.pages is None else requests.pages.stride(0)
    lengths = requests.q_len, requests.kv_len, requests.q_start, requests.kv_start
    numbers = scale * LOG2_E, *lengths, *strides, *rest, pages
    for some, tensors in requests.launches(q, k, v, found, sums, dim=None if requests.are_packed else 0):
        given = *tensors, groups, shares, *columns, some.q_starts, some.kv_starts, some.pages, *parts
        grid = (width, groups.shape[0], some.count)
        launch(attn_fwd, grid, given, (*numbers, some.q_total, splits))
    if launches > 1:
        combine(found, sums, out, lse, splits)
