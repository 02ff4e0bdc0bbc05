"""Launches of the kernels, for what `ops.py` has checked."""

from __future__ import annotations

from functools import wraps

import torch

from . import arrays, binaries, configs, tuned
from .configs import Config
from .forward import (
    attn_fwd_demo,
)
from .pattern import FORM, HEAD_DIM
from .requests import LOG2_E, MOST_TOGETHER, Requests, aligned, arch, precision, processors, query_starts, unpacked
from .splits import (
    attn_combine_demo,
)

binaries.use(
    attn_fwd_demo,
    attn_combine_demo,
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
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output like q [batch, heads, q_len, head_dim] and LSE [batch, heads, q_len], fp32, natural logarithm.

    The first query stands at position q_start, the first key at kv_start, a multiple of the block.
    """
    out = torch.empty_like(q)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    requests = Requests(q.shape[0], q.shape[2], k.shape[2], q_start, kv_start)
    _forward(q, k, v, out, lse, requests, layer, scale, head_offset, config)
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
    """Output like q [total_q, heads, head_dim] and LSE [heads, total_q] of packed sequences, int32 [requests + 1]."""
    count = len(cu_seqlens_q) - 1
    out, lse = _room(q, count, max_seqlen_q)
    lengths = count, max_seqlen_q, max_seqlen_k
    requests = Requests(*lengths, q_starts=cu_seqlens_q, kv_starts=cu_seqlens_k, q_total=len(q))
    tensors = [unpacked(x, count) for x in (q, k, v, out)]
    _forward(*tensors, lse.expand(count, -1, -1), requests, layer, scale, head_offset, config)
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
    splits: int | None = None,
    are_some_left: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output like q [total_q, heads, head_dim] and LSE [heads, total_q]; caches [pages, page_size, kv_heads, head_dim].

    Short queries take one tile with all heads of a KV head that are alike, and several programs share their keys.
    are_some_left: whether some queries may be of no request.
    """
    count, kv_len = len(seq_lens), block_table.shape[1] * k_cache.shape[1]  # the lengths are known to the device alone
    total = len(q) if are_some_left else 0
    packed = {"q_starts": query_start_loc, "kv_starts": seq_lens, "pages": block_table, "q_total": total}
    requests = Requests(count, max_q_len, kv_len, **packed)
    caches = k_cache.transpose(1, 2), v_cache.transpose(1, 2)
    out, lse = _room(q, count, max_q_len)
    if splits is None:
        splits = configs.splits(processors(q.device), count * k_cache.shape[2] * max_q_len, kv_len)
    if splits == 1 or not count or not max_q_len:
        tensors = unpacked(q, count), *caches, unpacked(out, count)
        _forward(*tensors, lse.expand(count, -1, -1), requests, layer, scale, head_offset, config)
        return out, lse
    parts, lses = _room(q.expand(splits, *q.shape), count, max_q_len, torch.float32)
    tensors = unpacked(q, count), *caches, unpacked(parts, count)
    _forward(*tensors, lses[:, None].expand(-1, count, -1, -1), requests, layer, scale, head_offset, config)
    attn_combine_demo[q.shape[:2]](
        parts,
        lses,
        out,
        lse,
        splits,
        *parts.stride()[:3],
        *lses.stride()[:2],
        *out.stride()[:2],
        lse.stride(0),
        SPLITS=1 << (splits - 1).bit_length(),
        num_warps=4,
        enable_fp_fusion=True,
    )
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
    splits: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output like q [requests, q_len, heads, head_dim] and LSE [requests, heads, q_len]: the newest q_len tokens."""
    count, q_len, heads, head_dim = q.shape
    starts = query_starts(count, q_len, q.device)
    options = {"layer": layer, "scale": scale, "head_offset": head_offset, "config": config}
    options |= {"splits": splits, "are_some_left": False}
    tokens = q.reshape(count * q_len, heads, head_dim)
    out, lse = forward_paged(tokens, k_cache, v_cache, block_table, seq_lens, starts, max_q_len=q_len, **options)
    return out.view(q.shape), lse.view(heads, count, q_len).transpose(0, 1)


def _room(
    q: torch.Tensor, count: int, longest: int, dtype: torch.dtype | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """For output and LSE of packed queries [..., rows, heads, head_dim]: the kernel writes all of it if it is launched
    once, else 0 and -inf stand where no request is."""
    *parts, rows, heads, _ = q.shape
    out = torch.empty_like(q) if dtype is None else torch.empty(q.shape, dtype=dtype, device=q.device)
    lse = torch.empty(*parts, heads, rows, dtype=torch.float32, device=q.device)
    if not count or not longest or count > MOST_TOGETHER:
        out.zero_()
        lse.fill_(float("-inf"))
    return out, lse


def _forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    requests: Requests,
    layer: int,
    scale: float,
    head_offset: int,
    config: Config | None,
) -> None:
    """Launch the kernel on views [batch or pages, heads, rows, head_dim]; `out` and `lse` may have [parts] before."""
    if not requests.count or not requests.q_len:
        return
    if scale < 0:  # a maximum of scores must be one of scaled scores
        q, scale = -q, -scale

    classes = arrays.present(layer, head_offset, q.shape[1])
    shared = arrays.group_size(classes, head_offset)
    rows = requests.q_len * shared
    config = config or tuned.forward(q, rows) or configs.forward(arch(q.device), HEAD_DIM, q.element_size(), rows)
    block_q, block_h, tiles = requests.tiling(config, shared)
    pattern, entries, places = arrays.row_arrays(classes, requests.rows, requests.columns, q.device)
    groups = arrays.head_groups(classes, head_offset, places, block_h, q.device)

    splits = out.shape[0] if out.dim() == 5 else 1
    split_strides = (out.stride(0), lse.stride(0)) if out.dim() == 5 else (0, 0)
    align, strides = aligned(q, k, v, out)
    are_paged = requests.pages is not None
    of_keys = None if are_paged else 0
    for some, tensors in requests.launches((q, 0), (k, of_keys), (v, of_keys), (out, -4), (lse, -3)):
        attn_fwd_demo[(tiles * splits, len(groups), some.count)](
            *tensors,
            groups,
            pattern,
            entries,
            some.q_starts,
            some.kv_starts,
            some.pages,
            scale * LOG2_E,
            some.q_len,
            some.kv_len,
            some.q_start,
            some.kv_start,
            *strides,
            split_strides[0],
            *lse.stride()[-3:-1],
            split_strides[1],
            0 if some.pages is None else some.pages.stride(0),
            some.q_total,
            splits,
            BLOCK_Q=block_q,
            BLOCK_H=block_h,
            BLOCK_N=config.keys,
            PAGE=k.shape[2] if are_paged else 0,
            ALIGN=align,
            IS_PACKED=some.are_packed,
            IS_LOOKED_UP=FORM == "table" or are_paged,
            STAGES=config.stages,
            PRECISION=precision(q),
            num_warps=config.warps,
            num_stages=config.stages,
            enable_fp_fusion=True,
        )
