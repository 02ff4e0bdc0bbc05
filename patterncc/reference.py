"""The meaning of a pattern, once more and by itself: the witness that tests hold against everything else.

Straight from the language's definition, with no pass and no intermediate representation; of the compiler it takes
only `Pattern.shard`, the plain numbers of one head. Two statements stand here, `attends` for one pair of tokens and
`keeps` for arrays of them; a test holds them against each other. Positions are absolute: a query may stand before
the first key (t < 0), where floor division still names its row, and random draws, masks and global rows keep nothing.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from patterncc.language.resolved import Resolved, ResolvedStride

if TYPE_CHECKING:
    import torch

    from patterncc.language.model import Pattern

_64_BITS = 2**64 - 1


def attends(pattern: Pattern, layer: int, head: int, t: int, u: int) -> bool:
    """Whether query token t may attend key token u."""
    if pattern.causal and u > t:
        return False
    shard = pattern.shard(layer, head)
    i, j = t // pattern.block, u // pattern.block
    return (
        shard.dense
        or (shard.local is not None and -shard.local[1] < i - j < shard.local[0])
        or (shard.local_tokens is not None and -shard.local_tokens[1] < t - u < shard.local_tokens[0])
        or (shard.chunk > 0 and i // shard.chunk == j // shard.chunk)
        or any(_on_stride(stride, i, j) for stride in shard.strides)
        or any(low <= t - u and (high is None or t - u < high) for low, high in shard.bands)
        or j < shard.sink
        or u < shard.sink_tokens
        or i in shard.global_rows
        or j in shard.global_columns
        or (shard.random is not None and j in drawn(shard.random[1], i, shard.random[0]))
        or (shard.mask is not None and _in_mask(shard.mask, i, j))
    )


def _on_stride(stride: ResolvedStride, i: int, j: int) -> bool:
    distance = abs(i - j)
    if distance < stride.distance_from or (stride.distance_to is not None and distance >= stride.distance_to):
        return False
    x = j if stride.anchor == "key" else i - j
    return (x - stride.offset) % stride.every < stride.width


def _in_mask(mask: NDArray[np.bool_], i: int, j: int) -> bool:
    return 0 <= i < mask.shape[0] and j < mask.shape[1] and bool(mask[i, j])


@lru_cache(maxsize=2**16)
def drawn(seed: int, row: int, blocks: int) -> frozenset[int]:
    """The columns that a row draws: all of 0 … row if they are no more than `blocks`, else so many of them.

    Floyd's sampling: the k-th draw is from 0 … top, top = row + 1 - blocks + k, and a column that was drawn before
    gives top itself, which cannot have been. A row before the first block draws nothing.
    """
    if row < blocks:
        return frozenset(range(row + 1))
    columns: set[int] = set()
    for k in range(blocks):
        top = row + 1 - blocks + k
        draw = (_mixed(seed, row, k) >> 1) % (top + 1)
        columns.add(top if draw in columns else draw)
    return frozenset(columns)


def _mixed(seed: int, row: int, k: int) -> int:
    """64 bits from three numbers: a weighted sum, then splitmix64's finish."""
    z = seed * 0x9E3779B97F4A7C15 + row * 0xBF58476D1CE4E5B9 + k * 0x94D049BB133111EB & _64_BITS
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _64_BITS
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _64_BITS
    return z ^ z >> 31


def keeps(pattern: Pattern, layer: int, head: int, t: NDArray[np.int64], u: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[queries, keys]: `attends` for all query positions t [queries] and key positions u [keys]."""
    shard = pattern.shard(layer, head)
    rows, row_of = np.unique(t // pattern.block, return_inverse=True)
    columns, column_of = np.unique(u // pattern.block, return_inverse=True)
    blocks = _kept_blocks(shard, rows[:, None], columns[None, :])
    kept = blocks[row_of.reshape(-1)][:, column_of.reshape(-1)]
    distance = t[:, None] - u[None, :]
    if shard.local_tokens is not None:
        before, after = shard.local_tokens
        kept |= (distance < before) & (distance > -after)
    for low, high in shard.bands:
        kept |= (distance >= low) & (distance < (high or np.iinfo(np.int64).max))
    kept |= u[None, :] < shard.sink_tokens
    return kept & (distance >= 0) if pattern.causal else kept


def _kept_blocks(shard: Resolved, i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[rows, columns]: the blocks kept whole, for rows i [rows, 1] and columns j [1, columns]."""
    d = i - j
    kept = np.full(d.shape, shard.dense)
    if shard.local is not None:
        kept |= (d < shard.local[0]) & (-d < shard.local[1])
    if shard.chunk:
        kept |= i // shard.chunk == j // shard.chunk
    for stride in shard.strides:
        near = np.abs(d) < (stride.distance_to or np.iinfo(np.int64).max)
        x = j if stride.anchor == "key" else d
        kept |= near & (np.abs(d) >= stride.distance_from) & (np.mod(x - stride.offset, stride.every) < stride.width)
    kept |= (j < shard.sink) | np.isin(i, shard.global_rows) | np.isin(j, shard.global_columns)
    if shard.random is not None:
        for n, row in enumerate(i[:, 0].tolist()):
            kept[n] |= np.isin(j[0], list(drawn(shard.random[1], row, shard.random[0])))
    if shard.mask is not None:
        inside = (i >= 0) & (i < shard.mask.shape[0]) & (j < shard.mask.shape[1])
        kept |= inside & shard.mask[np.clip(i, 0, shard.mask.shape[0] - 1), np.clip(j, 0, shard.mask.shape[1] - 1)]
    return kept


def mask(pattern: Pattern, layer: int, head: int, q_len: int, kv_len: int | None = None) -> torch.Tensor:
    """Bool [q_len, kv_len] of one head; the last query stands where the last key stands."""
    import torch

    keys = q_len if kv_len is None else kv_len
    return torch.from_numpy(keeps(pattern, layer, head, np.arange(keys - q_len, keys), np.arange(keys)))


def dense_mask(
    pattern: Pattern, layer: int, q_len: int, kv_len: int | None = None, heads: range | None = None
) -> torch.Tensor:
    """Bool [heads, q_len, kv_len] of a layer: of all its heads, or of some."""
    import torch

    # Heads often share one shard: state each only once.
    of_shard: dict[int, torch.Tensor] = {}
    chosen = range(pattern.shape(layer).heads) if heads is None else heads
    for head in chosen:
        of_shard.setdefault(id(pattern.shard(layer, head)), mask(pattern, layer, head, q_len, kv_len))
    return torch.stack([of_shard[id(pattern.shard(layer, head))] for head in chosen])


def attention(
    pattern: Pattern,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    layer: int = 0,
    scale: float | None = None,
    head_offset: int = 0,
    sinks: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Dense attention in fp64: out like q in shape, and the natural LSE [batch, heads, q_len].

    q [batch, heads, q_len, head_dim], k and v [batch, kv_heads, kv_len, head_dim]; differentiable. A query that
    attends nothing gives out 0 and LSE -inf. `head_offset` is the pattern's head that q's first head is. `sinks`
    [heads] are logits of one more key for each head, whose value is 0.
    """
    import torch

    heads, q_len, kv_len = q.shape[1], q.shape[2], k.shape[2]
    group = pattern.shape(layer).group
    of_kv = [(head_offset + h) // group - head_offset // group for h in range(heads)]
    q, k, v = q.double(), k.double()[:, of_kv], v.double()[:, of_kv]
    kept = dense_mask(pattern, layer, q_len, kv_len, range(head_offset, head_offset + heads)).to(q.device)
    empty = ~kept.any(-1, keepdim=True)
    scale = pattern.scale if scale is None else scale
    scores = q @ k.transpose(-1, -2) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if pattern.softcap:
        scores = pattern.softcap * torch.tanh(scores / pattern.softcap)
    if sinks is not None:
        scores = torch.cat([scores, sinks.double()[:, None, None].expand(*scores.shape[:3], 1)], -1)
        is_one = (sinks != -math.inf)[:, None, None].expand(*kept.shape[:2], 1)
        kept = torch.cat([kept, is_one.to(kept.device)], -1)
        empty = ~kept.any(-1, keepdim=True)
        v = torch.cat([v, v.new_zeros(*v.shape[:2], 1, v.shape[3])], 2)  # also where no key is there
    scores = scores.masked_fill(~kept, -math.inf).masked_fill(empty, 0.0)  # an empty row must not make NaN gradients
    lse = torch.logsumexp(scores, -1, keepdim=True)
    out = (scores - lse).exp() @ v
    return out.masked_fill(empty, 0.0), lse.masked_fill(empty, -math.inf)[..., 0]
