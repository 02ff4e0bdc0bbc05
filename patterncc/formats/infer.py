"""A boolean mask → the smallest rules of the language that equal it, head by head.

A mask is a sample of a pattern: its first T rows. A rule is accepted when it equals the sample exactly and the sample
shows at least two of its periods. A head that no rule explains stays an explicit mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from patterncc.formats.rules import Rule, Stride

Mask = NDArray[np.bool_]
BLOCKS = (128, 64, 32, 16)
MOST_DISTANCES = 16  # single distances that are written out as strides before a mask is simpler
MOST_COLUMNS = 64  # single columns, likewise


@dataclass(frozen=True)
class Inferred:
    """Rules of one layer, one a head; `left[h]` is the block mask of a head that no rule explains, else None."""

    block: int
    causal: bool
    rules: tuple[Rule, ...]
    left: tuple[Mask | None, ...]
    periods: float  # the fewest periods of a stride or chunk that the sample shows; inf without any

    @property
    def explained(self) -> bool:
        return all(rest is None for rest in self.left)


def infer(mask: Mask, causal: bool | None = None) -> Inferred | None:
    """The rules that equal `mask` [heads, T, T] of tokens; None where no sparse block fits it to the token."""
    if causal is None:
        causal = not np.triu(mask.any(0), 1).any()
    fallback: Inferred | None = None
    for block in BLOCKS:
        if block > mask.shape[1]:
            continue
        heads = [_head(head, block, causal) for head in mask]
        if any(found is None for found in heads):
            continue
        rules, left, periods = zip(*(found for found in heads if found), strict=True)
        inferred = Inferred(block, causal, rules, left, min(periods))
        if inferred.explained:
            return inferred
        fallback = fallback or inferred
    return fallback


def infer_blocks(mask: Mask, block: int, causal: bool) -> Inferred:
    """The rules that equal a mask of blocks [heads, rows, columns], square."""
    heads = [_blocks(head, np.zeros_like(head), causal) for head in mask]
    rules, left, periods = zip(*heads, strict=True)
    return Inferred(block, causal, rules, left, min(periods))


def _head(mask: Mask, block: int, causal: bool) -> tuple[Rule, Mask | None, float] | None:
    """One head: in whole blocks if that is exact, else parts that are exact to the token over whole blocks."""
    whole = _whole(mask, block, causal)
    if (_tokens(whole, block, len(mask), causal) == mask).all():
        return _blocks(whole, np.zeros_like(whole), causal)
    for sink in sorted({0, _prefix(mask, causal)}):
        if found := _exact(mask, whole, block, causal, sink):
            return found
    return None


def _exact(mask: Mask, whole: Mask, block: int, causal: bool, sink: int) -> tuple[Rule, Mask | None, float] | None:
    """One head as a window, a chunk and `sink` first tokens, exact to the token, over whole blocks; None if not."""
    t = np.arange(len(mask))
    distance = t[:, None] - t
    before, after = _band(mask, causal)
    chunk = _chunk(mask, causal)
    known = (distance < before) & (-distance < after) | (t < sink)
    if chunk:
        known |= t[:, None] // chunk == t // chunk
        if before <= 1 and after <= 1:
            before = 0
    if causal:
        known &= distance >= 0
    if (known | _tokens(whole, block, len(mask), causal) != mask).any():
        return None
    rule, left, periods = _blocks(whole, _whole(known, block, causal), causal)
    rule = replace(
        rule,
        local=None if not before else f"{before} tokens" if causal else (f"{before} tokens", f"{after} tokens"),
        chunk=f"{chunk} tokens" if chunk else None,
        sink=f"{sink} tokens" if sink else None,
    )
    return rule, left, min(periods, len(mask) / chunk if chunk else np.inf)


def _whole(mask: Mask, block: int, causal: bool) -> Mask:
    """Blocks of which the mask keeps every pair (that causality leaves): [rows, columns]."""
    length = len(mask)
    full = mask | np.triu(np.ones_like(mask), 1) if causal else mask
    count = -(-length // block)
    padded = np.ones((count * block, count * block), bool)
    padded[:length, :length] = full
    whole = np.asarray(padded.reshape(count, block, count, block).all((1, 3)))
    return np.tril(whole) if causal else whole


def _tokens(blocks: Mask, block: int, length: int, causal: bool) -> Mask:
    mask = blocks.repeat(block, 0).repeat(block, 1)[:length, :length]
    return np.tril(mask) if causal else mask


def _band(mask: Mask, causal: bool) -> tuple[int, int]:
    """The widest band around the diagonal that is kept whole: keys before (own counted) and after."""
    before = _while_true(np.diagonal(mask, -d).all() for d in range(len(mask)))
    if causal:
        return before, 1 if before else 0
    return before, _while_true(np.diagonal(mask, d).all() for d in range(len(mask)))


def _prefix(mask: Mask, causal: bool) -> int:
    """How many of the first keys every query keeps."""
    return _while_true(mask[u if causal else 0 :, u].all() for u in range(mask.shape[1]))


def _chunk(mask: Mask, causal: bool) -> int:
    """The length of chunks that are kept whole, if the sample shows that they end; else 0."""
    ends = [t for t in range(1, len(mask)) if not mask[t, t - 1]]
    size = ends[0] if ends else 0
    if size < 2:
        return 0
    t = np.arange(len(mask))
    own = t[:, None] // size == t // size
    own = own & (t[:, None] >= t) if causal else own
    return size if mask[own].all() else 0


def _while_true(values: object) -> int:
    count = 0
    for value in values:  # type: ignore[attr-defined]
        if not value:
            break
        count += 1
    return count


def _blocks(kept: Mask, known_before: Mask, causal: bool) -> tuple[Rule, Mask | None, float]:
    """The rule of one head in blocks: keeps what of `kept` is not in `known_before`, and nothing outside `kept`."""
    count = len(kept)
    i = np.arange(count)
    distance = i[:, None] - i
    possible = distance >= 0 if causal else np.ones_like(kept)
    if (kept == possible).all() and not known_before.any():
        return Rule(dense=True), None, np.inf

    def missing() -> bool:
        return bool((kept & ~known).any())

    known = known_before.copy()
    before = after = sink = 0
    if not known_before.any():  # else windows and sinks are given in tokens
        before, after = _band(kept, causal)
        known |= (distance < before) & (-distance < after) & possible
    rows = [] if causal else [row for row in range(count) if kept[row].all()] if missing() else []
    known[rows] = True
    columns = [j for j in range(count) if kept[possible[:, j], j].all()]
    strides: list[Stride] = []
    periods = np.inf
    if missing() and not known_before.any() and (sink := _prefix(kept, causal)):
        known_with_sink = known | (i < sink) & possible
        if not (kept & ~known_with_sink).any():
            known = known_with_sink
        else:
            sink = 0
    if missing():
        seen = [j for j in range(count) if (possible & ~known)[:, j].any()]
        for skipped in (0, _prefix(kept, causal)):  # a sink hides where a stride begins
            found = _periodic([j for j in columns if j in seen and j >= skipped], [j for j in seen if j >= skipped])
            if found:
                strides, periods = [found], len(seen) / found.every
                known |= _on(found, distance, i) & possible
                break
    if missing() and (sink := _prefix(kept, causal)):
        known |= (i < sink) & possible
    single = [j for j in columns if (kept & ~known)[:, j].any()]
    if len(single) > MOST_COLUMNS:
        single = []
    known[:, single] |= possible[:, single]
    if missing():
        whole = [d for d in range(1 - count, count) if np.diagonal(kept, -d).all()]
        for stride, shown in _by_distance(whole, count, before, causal):
            strides.append(stride)
            periods = min(periods, shown)
            known |= _on(stride, distance, i) & possible
    if missing() or (known & ~kept).any():
        return Rule(), kept, np.inf
    local = None if not before else before if causal or before == after else (before, after)
    rule = Rule(local=local, sink=sink or None, strides=tuple(strides), rows=plain(rows), columns=plain(single))
    return rule, None, periods


def plain(numbers: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(number) for number in numbers)


def _on(stride: Stride, distance: NDArray[np.int64], i: NDArray[np.int64]) -> Mask:
    """bool [rows, columns]: the blocks that a stride keeps."""
    x = np.broadcast_to(i, distance.shape) if stride.anchor == "key" else distance
    near = np.abs(distance)
    within = near >= stride.first if stride.stop is None else (near >= stride.first) & (near < stride.stop)
    return ((x - stride.offset) % stride.every < stride.width) & within


def _periodic(kept: Sequence[int], seen: Sequence[int]) -> Stride | None:
    """The shortest stride that keeps just `kept` of the consecutive numbers `seen`, which show two of its periods."""
    if not kept or len(kept) == len(seen):
        return None
    start = seen[0]
    flags = np.isin(np.arange(start, seen[-1] + 1), kept)
    for every in range(2, len(flags) // 2 + 1):
        if (flags[every:] == flags[:-every]).all():
            period = np.roll(flags[:every], start)  # period[x % every]: whether x is kept
            width = int(period.sum())
            for offset in range(every):
                if np.roll(period, -offset)[:width].all():
                    return Stride(every, offset, width)
            return None
    return None


def _by_distance(distances: Sequence[int], count: int, before: int, causal: bool) -> list[tuple[Stride, float]]:
    """Strides that keep whole diagonals: one with a period if there is one, else one for each single distance."""
    ahead = [d for d in distances if d >= 0]
    if not causal and [-d for d in distances if d <= 0][::-1] != ahead:
        return []
    found = _periodic(ahead, range(count))
    if found:
        return [(Stride(found.every, found.offset, found.width, "query"), count / found.every)]
    single = [d for d in ahead if d >= before]
    if len(single) > MOST_DISTANCES:
        return []
    runs: list[list[int]] = []
    for d in single:
        if runs and d == runs[-1][1]:
            runs[-1][1] = d + 1
        else:
            runs.append([d, d + 1])
    return [(Stride(1, first=a, stop=b), np.inf) for a, b in runs]
