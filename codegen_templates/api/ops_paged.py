"""Queries over keys in pages as torch operators, for serving."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..checks.shapes import check_decode, check_layer, check_paged
from ..checks.values import check_tensors, whole
from ..launch.outputs import like_output
from ..launch.requests import query_starts
from ..pattern import V_HEAD_DIM
from . import paths
from .again import found, key_of, recorded
from .dispatch import (
    autocast,
    default_scale,
    differentiable,
    is_plain,
    lse_dtype,
    operator,
    refuse_first,
    save_nothing,
    wants_gradient,
)
from .sinks import check_sinks, sunk


def attention_paged(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    seq_lens: Tensor,
    query_start_loc: Tensor,
    *,
    layer: int = 0,
    scale: float | None = None,
    return_lse: bool = False,
    head_offset: int = 0,
    max_q_len: int | None = None,
    sinks: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention of the newest tokens of each request over its keys in a paged cache: q [total_q, heads, head_dim].

    Request r has the queries query_start_loc[r] … query_start_loc[r + 1] - 1, which are the last of its seq_lens[r]
    tokens. Their keys stand in k_cache and v_cache [pages, page_size, kv_heads, head_dim], of any strides: token u in
    page block_table[r, u // page_size]. block_table [requests, max_pages], seq_lens and query_start_loc are int32.
    `max_q_len` bounds the queries of a request (one below the true number is refused on a CPU only, as in
    `attention_varlen`); a close bound saves launches on a GPU. Not differentiable.
    """
    tensors = q, k_cache, v_cache, block_table, seq_lens, query_start_loc, sinks
    key = key_of("paged", tensors, scale, layer, head_offset, max_q_len)
    if (recipe := found(key)) is not None and not wants_gradient(q, k_cache, v_cache):
        out, lse = recipe(*tensors)
        return (out, lse) if return_lse else out
    check_tensors(q=q, k_cache=k_cache, v_cache=v_cache, block_table=block_table, seq_lens=seq_lens)
    check_tensors(query_start_loc=query_start_loc)
    layer, head_offset = check_layer(layer), whole("head_offset", head_offset)
    (q,) = autocast(q) if q.dtype != k_cache.dtype else (q,)
    check_paged(q, k_cache, v_cache, block_table, seq_lens, query_start_loc, head_offset)
    check_sinks(sinks, q, q.shape[1])
    most = q.shape[0] if max_q_len is None else whole("max_q_len", max_q_len, 0)
    scale = default_scale(scale)
    tensors = q, k_cache, v_cache, block_table, seq_lens, query_start_loc, _detached(sinks)
    if is_plain(*tensors):
        forward = sunk(paths.packed(q).forward_paged, starts=5)
        place = {"max_q_len": most, "layer": layer, "scale": scale, "head_offset": head_offset}
        out, lse = recorded(key, forward, place, *tensors)
    else:
        out, lse = _open_paged(*tensors[:6], most, layer, scale, head_offset, tensors[6])
    return (out, lse) if return_lse else out


def decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    seq_lens: Tensor,
    *,
    layer: int = 0,
    scale: float | None = None,
    return_lse: bool = False,
    head_offset: int = 0,
    sinks: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """`attention_paged` with the same number of new tokens for every request: q [requests, q_len, heads, head_dim], of
    which seq_lens counts the keys too. The LSE is [requests, heads, q_len]."""
    tensors = q, k_cache, v_cache, block_table, seq_lens, sinks
    key = key_of("decode", tensors, scale, layer, head_offset)
    if (recipe := found(key)) is not None and not wants_gradient(q, k_cache, v_cache):
        out, lse = recipe(*tensors)
        return (out, lse.view(lse.shape[0], *q.shape[:2]).transpose(0, 1)) if return_lse else out
    check_tensors(k_cache=k_cache, v_cache=v_cache, block_table=block_table, seq_lens=seq_lens)
    check_decode(q)
    check_sinks(sinks, q, q.shape[2])
    requests, q_len, heads, _ = q.shape
    tokens, paged, sinks = q.flatten(0, 1), (k_cache, v_cache, block_table, seq_lens), _detached(sinks)
    if is_plain(q, *paged, sinks):
        layer, head_offset, scale = check_layer(layer), whole("head_offset", head_offset), default_scale(scale)
        starts = query_starts(requests, q_len, q.device)
        check_paged(tokens, *paged, starts, head_offset)
        place = {"layer": layer, "scale": scale, "head_offset": head_offset}
        place |= {"max_q_len": q_len, "are_some_left": False, "query_start_loc": starts}
        out, lse = recorded(key if q.is_contiguous() else None, partial(_decode, q.shape), place, tokens, *paged, sinks)
    else:
        starts = torch.arange(requests + 1, dtype=torch.int32, device=q.device) * q_len
        options = {"layer": layer, "head_offset": head_offset, "max_q_len": q_len, "scale": scale}
        out, lse = attention_paged(tokens, *paged, starts, return_lse=True, sinks=sinks, **options)
    out = out.view(*q.shape[:3], V_HEAD_DIM)
    return (out, lse.view(heads, requests, q_len).transpose(0, 1)) if return_lse else out


def _detached(sinks: Tensor | None) -> Tensor | None:
    return None if sinks is None else sinks.detach()


def _decode(shape: torch.Size, q: Tensor, *given: Tensor | None, **place: Any) -> tuple[Tensor, Tensor]:
    """Output of that shape, and LSE [heads, rows]."""
    out, lse = sunk(paths.packed(q).forward_paged)(q, *given, **place)
    return out.view(*shape[:-1], out.shape[-1]), lse


@operator("attention_paged")
def _paged(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    seq_lens: Tensor,
    query_start_loc: Tensor,
    max_q_len: int,
    layer: int,
    scale: float,
    head_offset: int,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    tensors = q, k_cache, v_cache, block_table, seq_lens, query_start_loc, sinks
    with torch.autocast(q.device.type, enabled=False):
        forward = sunk(paths.packed(q).forward_paged, starts=5)
        return forward(*tensors, max_q_len=max_q_len, layer=layer, scale=scale, head_offset=head_offset)


@_paged.register_fake
def _(q: Tensor, k_cache: Tensor, *_rest: object) -> tuple[Tensor, Tensor]:
    return like_output(q), q.new_empty((q.shape[1], q.shape[0]), dtype=lse_dtype(q))


_open_paged = differentiable(_paged, save_nothing, refuse_first)
