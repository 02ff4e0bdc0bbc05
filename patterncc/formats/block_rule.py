"""The rule of one head that keeps exactly the blocks of a sample, where the language has one of few enough parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from patterncc.formats.rules import Rule, Stride

Mask = NDArray[np.bool_]
MOST_DISTANCES = 16  # single distances that are written out as strides before a mask is simpler
MOST_COLUMNS = 64  # single columns, likewise


def block_rule(kept: Mask, known_before: Mask | None, causal: bool) -> tuple[Rule, Mask | None, float]:
    """The rule of one head's mask [rows, columns] of blocks; the mask itself where no rule explains it, else None; and
    how many periods of the rule's stride the mask shows, inf without a stride.

    The rule keeps all of `kept` that is not in `known_before`, and nothing outside `kept`. `known_before` are the
    blocks that windows and sinks in tokens keep: where it is given, the rule has no windows and sinks of its own.
    """
    if not kept.any() and known_before is None:
        return Rule(), kept, np.inf  # the language has no other word for nothing
    for chunk in sorted({0, chunk_of(kept, causal)}):
        found = _with_chunk(kept, known_before, causal, chunk)
        if found[1] is None:
            return found
    return Rule(), kept, np.inf


def _with_chunk(kept: Mask, known_before: Mask | None, causal: bool, chunk: int) -> tuple[Rule, Mask | None, float]:
    """`block_rule` with chunks of so many blocks; with none, 0."""
    count = len(kept)
    i = np.arange(count)
    distance = i[:, None] - i
    possible = distance >= 0 if causal else np.ones_like(kept)
    in_tokens = known_before is not None
    if (kept == possible).all() and not in_tokens:
        return Rule(dense=True), None, np.inf

    def missing() -> bool:
        return bool((kept & ~known).any())

    known = np.zeros_like(kept) if known_before is None else known_before.copy()
    before = after = sink = 0
    strides: list[Stride] = []
    if chunk:
        known |= (i[:, None] // chunk == i // chunk) & possible
    if missing() and not in_tokens:
        before, after = band(kept, causal)
        known |= (distance < before) & (-distance < after) & possible
    if missing() and in_tokens and (near := min(band(kept, causal)[: 1 if causal else 2])):
        strides.append(Stride(1, stop=near))
        known |= (abs(distance) < near) & possible
    rows = [] if causal else [row for row in range(count) if kept[row].all()] if missing() else []
    known[rows] = True
    columns = [j for j in range(count) if kept[possible[:, j], j].all()]
    periods = count / chunk if chunk else np.inf
    if missing() and not in_tokens and (sink := prefix(kept, causal)):
        known_with_sink = known | (i < sink) & possible
        if not (kept & ~known_with_sink).any():
            known = known_with_sink
        else:
            sink = 0
    if missing():
        seen = [j for j in range(count) if (possible & ~known)[:, j].any()]
        for skipped in (0, prefix(kept, causal)):  # a sink hides where a stride begins
            rest = [j for j in seen if j >= skipped]
            found = _periodic([j for j in columns if j in rest], rest)
            if found:
                strides, periods = [*strides, found], min(periods, len(rest) / found.every)
                known |= _on(found, distance, i) & possible
                break
    if missing() and not in_tokens and (sink := prefix(kept, causal)):
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
    rule = Rule(
        local=local,
        chunk=chunk or None,
        sink=sink or None,
        strides=tuple(strides),
        rows=_plain(rows),
        columns=_plain(single),
    )
    return rule, None, periods


def _plain(numbers: Sequence[int]) -> tuple[int, ...]:
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


def band(mask: Mask, causal: bool) -> tuple[int, int]:
    """The widest band around the diagonal that is kept whole: keys before (own counted) and after."""
    before = _count_true(np.diagonal(mask, -d).all() for d in range(len(mask)))
    if causal:
        return before, 1 if before else 0
    return before, _count_true(np.diagonal(mask, d).all() for d in range(len(mask)))


def prefix(mask: Mask, causal: bool) -> int:
    """How many of the first keys every query keeps."""
    return _count_true(mask[u if causal else 0 :, u].all() for u in range(mask.shape[1]))


def chunk_of(mask: Mask, causal: bool) -> int:
    """The length of chunks that are kept whole, if the sample shows that they end; else 0."""
    ends = [t for t in range(1, len(mask)) if not mask[t, t - 1]]
    size = ends[0] if ends else 0
    if size < 2:
        return 0
    t = np.arange(len(mask))
    own = t[:, None] // size == t // size
    own = own & (t[:, None] >= t) if causal else own
    return size if mask[own].all() else 0


def _count_true(values: Iterable[np.bool_]) -> int:
    """How many values are true before the first that is not."""
    return sum(1 for _ in takewhile(bool, values))
