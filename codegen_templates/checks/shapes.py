"""What callers may pass, checked where it comes in. Every message says what to change."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..pattern import BLOCK, HEAD_DIM, HEADS, KV_HEADS, LAYERS, NAME, V_HEAD_DIM
from ..rules.heads import SHARE, kv_head
from .values import MOST_TOKENS, check_tensors, counted, described, numbered, whole

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
WIDTHS = {"v": V_HEAD_DIM, "v_cache": V_HEAD_DIM}  # of these tensors; of others HEAD_DIM


def check_layer(layer: int) -> int:
    layer = whole("layer", layer)
    if not 0 <= layer < LAYERS:
        raise ValueError(f"{NAME} has {numbered('layer', LAYERS)}; layer={layer} is none of them")
    return layer


def check_length(**lengths: int) -> None:
    for name, length in lengths.items():
        if isinstance(length, bool) or not hasattr(length, "__index__") or length < 0:
            raise ValueError(f"{name} is a number of tokens; got {described(length)}")
        if length > MOST_TOKENS:
            raise ValueError(f"{name} is a number of tokens, {MOST_TOKENS:,} at most; got {length}")


def check_heads(heads: int, kv_heads: int, head_offset: int, layout: str = "[..., heads, head_dim]") -> None:
    """Local heads are a run of the pattern's, and their KV heads are all there. `layout`: what the dimensions of q are,
    for who has exchanged two of them."""
    if head_offset < 0 or head_offset + heads > HEADS or heads == 0:
        raise ValueError(
            f"{NAME} has {numbered('head', HEADS)}; q has {counted(heads, 'head')} and head_offset={head_offset}. "
            f"q is {layout}; head_offset is the first global query head present, under tensor parallelism rank * local "
            "heads"
        )
    needed = kv_head(heads - 1, head_offset) + 1
    if kv_heads != needed:
        advice = ["do not repeat k and v"] if kv_heads == heads else []
        if heads < HEADS or not advice:
            advice.append(
                f"a model of {counted(heads, 'head')} on {counted(kv_heads, 'KV head')} needs a pattern of as many: "
                "set heads and kv_heads in the pattern's file and compile again"
            )
        shared = "each query head has its own" if SHARE == 1 else f"{SHARE} query heads share one"
        raise ValueError(
            f"heads {head_offset} to {head_offset + heads - 1} of {NAME} read {counted(needed, 'KV head')} "
            f"({shared}: {HEADS} on {KV_HEADS} in all); k and v have {kv_heads}: {'; '.join(advice)}"
        )


def check_alike(**tensors: Tensor) -> None:
    """One dtype, one device, the pattern's head_dim, and of values its v_head_dim."""
    first = next(iter(tensors.values()))
    dtype, device = first.dtype, first.device
    if dtype in DTYPES:
        for name, x in tensors.items():
            if x.dtype != dtype or x.device != device or x.shape[-1] != WIDTHS.get(name, HEAD_DIM):
                break
        else:
            return
    for name, x in tensors.items():
        width = WIDTHS.get(name, HEAD_DIM)
        if x.shape[-1] != width:
            key = "head_dim" if width == HEAD_DIM else "v_head_dim"
            raise ValueError(
                f"{NAME} is compiled for {key} {width}; {name} has {x.shape[-1]}. "
                f"Set {key} in the pattern's file and compile again"
            )
    dtypes = {x.dtype for x in tensors.values()}
    if len(dtypes) > 1:
        raise TypeError(f"{_names(tensors)} must have one dtype, not {_list(dtypes)}: cast them, or use torch.autocast")
    if not dtypes <= set(DTYPES):
        raise TypeError(f"{_names(tensors)} are {_list(dtypes)}; float32, float16 and bfloat16 are supported")
    devices = {x.device for x in tensors.values()}
    if len(devices) > 1:
        raise ValueError(f"{_names(tensors)} must be on one device, not {_list(devices)}")


def check_pair(**tensors: Tensor) -> None:
    """K and V of one shape, but for their widths where the pattern says these."""
    k, v = tensors.values()
    if V_HEAD_DIM == HEAD_DIM:
        if k.shape != v.shape:
            raise ValueError(f"{_names(tensors)} must have one shape; got {list(k.shape)} and {list(v.shape)}")
    elif k.shape[:-1] != v.shape[:-1]:
        raise ValueError(
            f"{_names(tensors)} must have one shape but for head_dim {HEAD_DIM} and v_head_dim {V_HEAD_DIM}; "
            f"got {list(k.shape)} and {list(v.shape)}"
        )


def check_attention(q: Tensor, k: Tensor, v: Tensor, head_offset: int, kv_start: int) -> None:
    if q.dim() != 4 or k.dim() != 4:
        raise ValueError(
            f"q is [batch, heads, q_len, head_dim], k and v are [batch, kv_heads, kv_len, head_dim]; "
            f"got {list(q.shape)} and {list(k.shape)}"
        )
    check_pair(k=k, v=v)
    if q.shape[0] != k.shape[0]:
        raise ValueError(f"q has a batch of {q.shape[0]}, k and v of {k.shape[0]}")
    check_alike(q=q, k=k, v=v)
    check_heads(q.shape[1], k.shape[1], head_offset, "[batch, heads, q_len, head_dim]")
    if kv_start % BLOCK:
        raise ValueError(f"kv_start={kv_start} must be a multiple of the pattern's block, {BLOCK}")


def check_varlen(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, head_offset: int) -> None:
    if q.dim() != 3 or k.dim() != 3:
        raise ValueError(
            f"q is [total_q, heads, head_dim], k and v are [total_k, kv_heads, head_dim]; "
            f"got {list(q.shape)} and {list(k.shape)}"
        )
    check_pair(k=k, v=v)
    check_alike(q=q, k=k, v=v)
    check_heads(q.shape[1], k.shape[1], head_offset)
    check_lengths(q, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k)
    if cu_seqlens_q.shape != cu_seqlens_k.shape:
        raise ValueError(
            f"cu_seqlens_q and cu_seqlens_k speak of the same sequences; "
            f"they have {len(cu_seqlens_q)} and {len(cu_seqlens_k)} entries"
        )
    if not len(cu_seqlens_q):
        raise ValueError("cu_seqlens_q and cu_seqlens_k are [sequences + 1]: without any sequence they are [0]")


def check_offsets(tokens: int, **offsets: list[int]) -> None:
    """Where packed sequences begin and the last one ends. On a GPU nobody looks: that would wait for it."""
    for name, found in offsets.items():
        steps = list(pairwise([0, *found, tokens]))
        if any(a > b for a, b in steps):
            n = next(n for n, (a, b) in enumerate(steps) if a > b)
            raise ValueError(
                f"{name} never falls, and stays within 0 to {tokens}, the tokens that are there; "
                f"entry {min(n, len(found) - 1)} is {found[min(n, len(found) - 1)]}"
            )


def check_longest(name: str, most: int, starts: list[int]) -> None:
    """No sequence is longer than was said: on a GPU, where nobody looks, what is beyond would not be computed."""
    longest = max((b - a for a, b in pairwise(starts)), default=0)
    if longest > most:
        raise ValueError(f"{name} is the most tokens that a sequence has; it is {most}, and one has {longest}")


def check_paged(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    seq_lens: Tensor,
    query_start_loc: Tensor,
    head_offset: int,
) -> None:
    """ValueError or TypeError unless the tensors are as `attention_paged` takes them."""
    if q.dim() != 3 or k_cache.dim() != 4:
        raise ValueError(
            f"q is [total_q, heads, head_dim], the caches are [pages, page_size, kv_heads, head_dim]; "
            f"got {list(q.shape)} and {list(k_cache.shape)}"
        )
    check_pair(k_cache=k_cache, v_cache=v_cache)
    check_alike(q=q, k_cache=k_cache, v_cache=v_cache)
    check_heads(q.shape[1], k_cache.shape[2], head_offset)
    if k_cache.stride(-1) != 1 or v_cache.stride(-1) != 1:
        raise ValueError("the last dimension of k_cache and v_cache must be contiguous")
    check_lengths(q, seq_lens=seq_lens, query_start_loc=query_start_loc)
    count = seq_lens.shape[0]
    if block_table.dim() != 2 or block_table.shape[0] != count or query_start_loc.shape[0] != count + 1:
        raise ValueError(
            f"block_table is [requests, max_pages], seq_lens [requests], query_start_loc [requests + 1]; "
            f"got {list(block_table.shape)}, {list(seq_lens.shape)} and {list(query_start_loc.shape)}"
        )
    _check_whole(q, 2, block_table=block_table)


def check_decode(q: Tensor) -> None:
    check_tensors(q=q)
    if q.dim() != 4:
        raise ValueError(f"q is [requests, q_len, heads, head_dim]; got {list(q.shape)}")


def check_parts(outs: Sequence[Tensor], lses: Sequence[Tensor], packed: bool | None) -> None:
    """Parts of one attention, each output with its LSE."""
    if not outs or len(outs) != len(lses):
        raise ValueError(f"combine takes an output and an LSE of each part; got {len(outs)} and {len(lses)}")
    for n, (out, lse) in enumerate(zip(outs, lses, strict=True)):
        check_tensors(**{f"outs[{n}]": out, f"lses[{n}]": lse})
        if not out.is_floating_point() or not lse.is_floating_point() or {out.device, lse.device} != {outs[0].device}:
            raise ValueError(
                f"outputs and LSEs are floating-point tensors on one device; part {n} has "
                f"{described(out)} on {out.device} and {described(lse)} on {lse.device}"
            )
        wanted = (*out.shape[:-3], out.shape[-2], out.shape[-3]) if packed and out.dim() > 2 else out.shape[:-1]
        if out.shape != outs[0].shape or not out.dim() or lse.shape != wanted:
            raise ValueError(
                f"an LSE is shaped like its output without head_dim, and parts are shaped alike; part {n} has "
                f"{list(out.shape)} and {list(lse.shape)}, part 0 {list(outs[0].shape)}. attention_varlen, "
                "attention_paged and decode give the heads before the queries in an LSE: say packed=True for these"
            )
    out, lse = outs[0], lses[0]
    if packed is None and out.dim() == 3 and 1 < len(lse) == lse.shape[1] and lse.stride(1) == 1:
        raise ValueError(
            f"{list(out.shape)} and {list(lse.shape)} do not tell heads from queries: say packed=True if heads come "
            "first in an LSE, as attention_varlen and attention_paged give it, packed=False if it is like its output"
        )


def check_lengths(q: Tensor, **tensors: Tensor) -> None:
    _check_whole(q, 1, **tensors)


def _check_whole(q: Tensor, dim: int, **tensors: Tensor) -> None:
    """Whole numbers on the device of q."""
    device = q.device
    for name, x in tensors.items():
        if x.dtype not in (torch.int32, torch.int64) or x.dim() != dim:
            raise TypeError(f"{name} must be {('one', 'two')[dim - 1]}-dimensional int32; it is {described(x)}")
        if x.device != device:
            raise ValueError(f"{name} is on {x.device} and q on {q.device}; move one")


def _names(tensors: dict[str, Tensor]) -> str:
    *first, last = tensors
    return f"{', '.join(first)} and {last}"


def _list(things: set) -> str:
    return " and ".join(sorted(str(thing).removeprefix("torch.") for thing in things))
