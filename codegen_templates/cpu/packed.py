"""Many sequences of different lengths on the CPU: packed one after another, or with their keys in pages."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks.shapes import check_longest, check_offsets
from ..checks.values import counted
from ..launch.outputs import like_output
from . import attention, compiled, odd
from .keys import Pages
from .library import asked
from .sinks import gradient

FEW_QUERIES = 32  # of a request: fewer do not fill the kernels' panels, and torch takes a KV head's queries together


def forward_varlen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    layer: int,
    scale: float,
    head_offset: int,
) -> tuple[Tensor, Tensor]:
    """Output like q [total_q, heads, dim] and LSE [heads, total_q]; k and v [total_k, kv_heads, dim]."""
    out, lse = _nothing(q)
    sequences = _sequences(cu_seqlens_q, cu_seqlens_k, len(q), len(k), max_seqlen_q, max_seqlen_k)
    call = {"layer": layer, "scale": scale, "head_offset": head_offset, "kv_start": 0}
    for queries, keys in sequences:
        parts = (_one(q[queries]), _one(k[keys]), _one(v[keys]))
        out_part, lse_part = attention.forward(*parts, q_start=_length(keys) - _length(queries), **call)
        out[queries] = out_part[0].transpose(0, 1)
        lse[:, queries] = lse_part[0]
    return out, lse


def backward_varlen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    dout: Tensor,
    dlse: Tensor | None,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    sinks: Tensor | None = None,
    *,
    max_seqlen_q: int,
    max_seqlen_k: int,
    layer: int,
    scale: float,
    head_offset: int,
) -> tuple[Tensor, ...]:
    """dq, dk and dv, each like its tensor, and the gradient of sinks, if they are in out and lse."""
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    sequences = _sequences(cu_seqlens_q, cu_seqlens_k, len(q), len(k), max_seqlen_q, max_seqlen_k)
    call = {"layer": layer, "scale": scale, "head_offset": head_offset, "kv_start": 0}
    for queries, keys in sequences:
        parts = (_one(q[queries]), _one(k[keys]), _one(v[keys]), _one(out[queries]), lse[None, :, queries])
        given = (_one(dout[queries]), None if dlse is None else dlse[None, :, queries])
        grads = attention.backward(*parts, *given, q_start=_length(keys) - _length(queries), **call)
        for x, tokens, grad in zip((dq, dk, dv), (queries, keys, keys), grads, strict=True):
            x[tokens] = grad[0].transpose(0, 1)
    if sinks is None:
        return dq, dk, dv
    rows = _one(out), lse[None], _one(dout), None if dlse is None else dlse[None]
    return dq, dk, dv, gradient(*rows, sinks)


def forward_paged(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    seq_lens: Tensor,
    query_start_loc: Tensor,
    *,
    max_q_len: int,
    layer: int,
    scale: float,
    head_offset: int,
    are_some_left: bool = True,
) -> tuple[Tensor, Tensor]:
    """Output like q [total_q, heads, dim] and LSE [heads, total_q]; caches [pages, page_size, kv_heads, dim]. The
    queries of a request are the last of its tokens; whether `are_some_left` that are of none is seen here."""
    asked()
    out, lse = _nothing(q)
    starts, lengths = query_start_loc.tolist(), seq_lens.tolist()
    check_offsets(len(q), query_start_loc=starts)
    check_longest("max_q_len", max_q_len, starts)
    if min(lengths, default=0) < 0:
        raise ValueError(f"seq_lens are numbers of tokens; one is {min(lengths)}")
    if lengths and max(lengths) > block_table.shape[1] * k_cache.shape[1]:
        raise ValueError(
            f"seq_lens has {counted(max(lengths), 'token')}, block_table room for "
            f"{counted(block_table.shape[1], 'page')} of {counted(k_cache.shape[1], 'token')}"
        )
    q = q if q.stride(-1) == 1 else q.contiguous()
    keys, values = k_cache.transpose(1, 2), v_cache.transpose(1, 2)
    for request, length in enumerate(lengths):
        queries = slice(starts[request], starts[request + 1])
        q_len, pages = _length(queries), block_table[request, : -(-length // k_cache.shape[1])]
        parts = _one(q[queries]), _one(out[queries]), lse[None, :, queries]
        if q_len >= FEW_QUERIES and compiled.usable(q) and _are_there(pages, len(k_cache)):
            where = compiled.Position(layer, head_offset, length - q_len, q_len, 0, length)
            compiled.forward(
                parts[0], keys, values, *parts[1:], where, scale, range(q.shape[1]), pages.int().contiguous()
            )
        else:
            place = layer, head_offset, length - q_len, 0
            attention.attend_to(Pages(keys, pages), Pages(values, pages), length, *parts, scale, place)
    if odd.has_nan(out):
        for request, length in enumerate(lengths):
            queries = slice(starts[request], starts[request + 1])
            if odd.has_nan(out[queries]):
                pages = block_table[request].long().clamp(0, len(k_cache) - 1)  # what is kept was there
                q_start = length - _length(queries)
                place = {"layer": layer, "scale": scale, "head_offset": head_offset, "q_start": q_start}
                given = _one(q[queries]), *(_one(x[pages].flatten(0, 1)[:length]) for x in (k_cache, v_cache))
                part, lse[None, :, queries] = attention.forward(*given, kv_start=0, **place)
                out[queries] = part[0].transpose(0, 1)
    return out, lse


def _are_there(pages: Tensor, count: int) -> bool:
    """Whether every entry is the number of a page. If not, the torch path runs: it reads only pages that are kept, and
    its error names the bad entry."""
    return not len(pages) or 0 <= int(pages.min()) <= int(pages.max()) < count


def _nothing(q: Tensor) -> tuple[Tensor, Tensor]:
    """Output 0 and LSE -inf, the result for tokens of no sequence."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    return like_output(q).zero_(), torch.full((q.shape[1], q.shape[0]), float("-inf"), dtype=dtype, device="cpu")


def _sequences(
    cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, queries: int, keys: int, most_queries: int, most_keys: int
) -> list[tuple[slice, slice]]:
    q, k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    check_offsets(queries, cu_seqlens_q=q)
    check_offsets(keys, cu_seqlens_k=k)
    check_longest("max_seqlen_q", most_queries, q)
    check_longest("max_seqlen_k", most_keys, k)
    return [(slice(q[n], q[n + 1]), slice(k[n], k[n + 1])) for n in range(len(q) - 1)]


def _length(tokens: slice) -> int:
    return tokens.stop - tokens.start


def _one(x: Tensor) -> Tensor:
    """A sequence [tokens, heads, dim] as a batch of one: [1, heads, tokens, dim]."""
    return x.transpose(0, 1)[None]
