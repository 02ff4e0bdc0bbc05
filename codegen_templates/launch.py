"""Launches of the kernels, for what `ops.py` has checked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, wraps

import torch

from . import arrays, configs
from .combine import (
    attn_combine,
)
from .configs import Config
from .forward import (
    attn_fwd,
)
from .pattern import BLOCK, FORM, HEAD_DIM, ROWS_PER_TILE_FREE

LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class Requests:
    """Where the queries and keys of each request are; lengths are of the longest when they are packed."""

    count: int
    q_len: int
    kv_len: int
    q_start: int = 0  # the position of the first query
    kv_start: int = 0  # the position of the first key, a multiple of the block
    q_starts: torch.Tensor | None = None  # packed: [count + 1] where each one's queries begin
    kv_starts: torch.Tensor | None = None  # [count + 1] where its keys begin; when paged, [count] how many there are
    pages: torch.Tensor | None = None  # [count, pages of the longest]


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
    out = torch.empty_like(q)
    lse = torch.empty(q.shape[1], q.shape[0], dtype=torch.float32, device=q.device)
    requests = Requests(count, max_seqlen_q, max_seqlen_k, q_starts=cu_seqlens_q, kv_starts=cu_seqlens_k)
    tensors = [_unpacked(x, count) for x in (q, k, v, out)]
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
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output like q [total_q, heads, head_dim] and LSE [heads, total_q]; caches [pages, page_size, kv_heads, head_dim].

    Short queries take one tile with all heads of a KV head that are alike, and several programs share their keys.
    """
    count, kv_len = len(seq_lens), block_table.shape[1] * k_cache.shape[1]  # the lengths are known to the device alone
    requests = Requests(count, max_q_len, kv_len, q_starts=query_start_loc, kv_starts=seq_lens, pages=block_table)
    caches = k_cache.transpose(1, 2), v_cache.transpose(1, 2)
    out = torch.empty_like(q)
    lse = torch.empty(q.shape[1], q.shape[0], dtype=torch.float32, device=q.device)
    if splits is None:
        splits = configs.splits(processors(q.device), count * k_cache.shape[2] * max_q_len, kv_len)
    if splits == 1:
        tensors = _unpacked(q, count), *caches, _unpacked(out, count)
        _forward(*tensors, lse.expand(count, -1, -1), requests, layer, scale, head_offset, config)
        return out, lse
    parts = torch.empty(splits, *q.shape, dtype=torch.float32, device=q.device)
    lses = torch.empty(splits, *lse.shape, dtype=torch.float32, device=q.device)
    tensors = _unpacked(q, count), *caches, _unpacked(parts, count)
    _forward(*tensors, lses[:, None].expand(-1, count, -1, -1), requests, layer, scale, head_offset, config)
    attn_combine[q.shape[:2]](
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
    options = {"layer": layer, "scale": scale, "head_offset": head_offset, "config": config, "splits": splits}
    tokens = q.reshape(count * q_len, heads, head_dim)
    out, lse = forward_paged(tokens, k_cache, v_cache, block_table, seq_lens, starts, max_q_len=q_len, **options)
    return out.view(q.shape), lse.view(heads, count, q_len).transpose(0, 1)


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
    q_len, q_start = requests.q_len, requests.q_start
    if not requests.count or not q_len:
        return
    if scale < 0:  # a maximum of scores must be one of scaled scores
        q, scale = -q, -scale

    classes = arrays.present(layer, head_offset, q.shape[1])
    shared = arrays.group_size(classes, head_offset)
    wanted = 1 << (q_len - 1).bit_length()
    config = config or configs.forward(arch(q.device), HEAD_DIM, q.element_size(), wanted * shared)
    block_q = min(config.rows, wanted, config.rows if ROWS_PER_TILE_FREE else BLOCK)
    block_h = max(min(config.rows // block_q, shared), 16 // block_q)

    if requests.q_starts is None:
        tiles = -(-(q_start + q_len) // block_q) - q_start // block_q
        rows = q_start // BLOCK, -(-(q_start + q_len) // BLOCK)
    else:
        tiles = (q_len + block_q - 2) // block_q + 1
        rows = -q_len // BLOCK, -(-requests.kv_len // BLOCK)
    columns = -(-(requests.kv_start + requests.kv_len) // BLOCK)
    pattern, entries, places = arrays.row_arrays(classes, rows, columns, q.device)
    groups = arrays.head_groups(classes, head_offset, places, block_h, q.device)

    splits = out.shape[0] if out.dim() == 5 else 1
    split_strides = (out.stride(0), lse.stride(0)) if out.dim() == 5 else (0, 0)
    strides = [stride for x in (q, k, v, out) for stride in x.stride()[-4:-1]]
    align = 16 // q.element_size()
    if any(stride % align for stride in strides):
        align = 1
    attn_fwd[(tiles * splits, len(groups), requests.count)](
        q,
        k,
        v,
        out,
        lse,
        groups,
        pattern,
        entries,
        requests.q_starts,
        requests.kv_starts,
        requests.pages,
        scale * LOG2_E,
        q_len,
        requests.kv_len,
        q_start,
        requests.kv_start,
        *(stride // align for stride in strides),
        split_strides[0],
        *lse.stride()[-3:-1],
        split_strides[1],
        0 if requests.pages is None else requests.pages.stride(0),
        splits,
        BLOCK_Q=block_q,
        BLOCK_H=block_h,
        BLOCK_N=config.keys,
        PAGE=0 if requests.pages is None else k.shape[2],
        ALIGN=align,
        IS_PACKED=requests.q_starts is not None,
        IS_LOOKED_UP=FORM == "table" or requests.pages is not None,
        STAGES=config.stages,
        PRECISION=precision(q),
        num_warps=config.warps,
        num_stages=config.stages,
        enable_fp_fusion=True,
    )


def _unpacked(x: torch.Tensor, count: int) -> torch.Tensor:
    """A view [count, heads, rows, head_dim] of [rows, heads, head_dim]: every request sees all rows."""
    return x.transpose(-3, -2).unsqueeze(-4).expand(*x.shape[:-3], count, -1, -1, -1)


def precision(q: torch.Tensor) -> str:
    """Of products of float32, as torch is set; others have one precision."""
    return "tf32" if q.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest" else "ieee"


@cache
def query_starts(count: int, q_len: int, device: torch.device) -> torch.Tensor:
    return torch.arange(0, (count + 1) * q_len, q_len, dtype=torch.int32, device=device)


@cache
def arch(device: torch.device) -> str:
    """The name of the device's architecture, as `patterncc compile --arch` takes it."""
    if device.type != "cuda":
        return "interpreter"
    if torch.version.hip:
        return torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))


@cache
def processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
