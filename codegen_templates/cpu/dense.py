"""Heads that keep everything at a length: torch's own causal attention computes them in one call."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from ..pattern import BLOCK, CAUSAL, CLASS_OF, CLASSES
from ..rules.heads import SHARE, kv_head
from ..rules.masks import keeps_blocks
from .attend import FUSED, is_fused

EVERYTHING = (None, None, None, None, None, None, 1, 0, 1, "j")  # the term
MOST_ROWS = 256  # that are looked at; longer sequences are dense only by that term


def dense_heads(
    layer: int, heads: int, head_offset: int, q_start: int, q_len: int, kv_start: int, kv_len: int
) -> tuple[int, ...]:
    """The heads present that keep all keys up to the query's own, if queries and keys are the same tokens."""
    if not is_fused() or not q_len or not kv_len or (CAUSAL and (q_start, q_len) != (kv_start, kv_len)):
        return ()
    span = min(q_start, kv_start) // BLOCK, -(-max(q_start + q_len, kv_start + kv_len) // BLOCK)
    return tuple(head for head in range(heads) if _is_dense(CLASS_OF[layer][head + head_offset], *span))


@cache
def _is_dense(klass: int, first: int, last: int) -> bool:
    if EVERYTHING in CLASSES[klass]["terms"]:
        return True
    if last - first > MOST_ROWS:
        return False
    rows = torch.arange(first, last, device="cpu")
    kept = keeps_blocks(klass, rows[:, None], rows[None, :])
    return bool((kept | (rows[None, :] > rows[:, None]) if CAUSAL else kept).all())


def attend_dense(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float, heads: tuple[int, ...], head_offset: int
) -> None:
    """Write causal attention of these heads over all keys to out and lse."""
    for queries, keys in _runs(heads, head_offset):
        part = FUSED(q[:, queries], k[:, keys], v[:, keys], 0.0, CAUSAL, attn_mask=None, scale=scale)
        out[:, queries], lse[:, queries] = part


def _runs(heads: tuple[int, ...], head_offset: int) -> Iterator[tuple[slice, slice]]:
    """Query heads and their KV heads, cut so that both are slices and no KV head is repeated."""
    left = sorted(heads)
    while left:
        run = [left[0]]
        while run[-1] + SHARE in left:
            run.append(run[-1] + SHARE)
        left = [head for head in left if head not in run]
        first = kv_head(run[0], head_offset)
        yield slice(run[0], run[-1] + 1, SHARE), slice(first, first + len(run))
