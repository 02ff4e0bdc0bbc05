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
    found = _Explained(kept, known_before, causal, chunk)
    if (kept == found.possible).all() and known_before is None:
        return Rule(dense=True), None, np.inf
    local = None
    if known_before is None:
        local = found.local()
    else:
        found.near()
    rows = found.rows()
    sink = 0 if known_before is not None else found.sink(of_all=True)
    found.columns_in_step()
    if known_before is None:
        sink = found.sink() or sink
    columns = found.columns()
    found.diagonals()
    if found.misses() or (found.known & ~kept).any():
        return Rule(), kept, np.inf
    rule = Rule(
        sink=sink or None, local=local, chunk=chunk or None, strides=tuple(found.strides), rows=rows, columns=columns
    )
    return rule, None, found.periods


class _Explained:
    """What is known of a mask. Each method finds the parts of one kind, where blocks are missing, and knows theirs."""

    def __init__(self, kept: Mask, known_before: Mask | None, causal: bool, chunk: int) -> None:
        self.kept, self.causal, self.count = kept, causal, len(kept)
        self.i = i = np.arange(self.count)
        self.distance = i[:, None] - i
        self.possible = self.distance >= 0 if causal else np.ones_like(kept)
        self.known = np.zeros_like(kept) if known_before is None else known_before.copy()
        if chunk:
            self.know(i[:, None] // chunk == i // chunk)
        self.strides: list[Stride] = []
        self.periods = self.count / chunk if chunk else np.inf  # that the mask shows
        self.before = 0  # blocks of a band around the diagonal

    def misses(self) -> bool:
        return bool((self.kept & ~self.known).any())

    def know(self, blocks: Mask) -> None:
        self.known |= blocks & self.possible

    def local(self) -> int | tuple[int, int] | None:
        """A band around the diagonal."""
        if not self.misses():
            return None
        self.before, after = before, after = band(self.kept, self.causal)
        self.know((self.distance < before) & (-self.distance < after))
        return None if not before else before if self.causal or before == after else (before, after)

    def near(self) -> None:
        """Whole blocks around the diagonal, beside windows in tokens: the same band, written as a stride of 1."""
        near = min(band(self.kept, self.causal)[: 1 if self.causal else 2])
        blocks = (abs(self.distance) < near) & self.possible
        if (blocks & ~self.known).any():  # a window in tokens may hold them all
            self.strides.append(Stride(1, stop=near))
            self.know(blocks)

    def rows(self) -> tuple[int, ...]:
        """Rows that keep all columns."""
        rows = [row for row in range(self.count) if self.kept[row].all()] if self.misses() and not self.causal else []
        self.known[rows] = True
        return tuple(rows)

    def sink(self, *, of_all: bool = False) -> int:
        """The first columns, if any are missing; with `of_all`, only where nothing is missing then."""
        sink = prefix(self.kept, self.causal) if self.misses() else 0
        with_sink = self.known | (self.i < sink) & self.possible
        if of_all and (self.kept & ~with_sink).any():
            return 0
        self.known = with_sink
        return sink

    def columns_in_step(self) -> None:
        """A stride over whole columns."""
        if not self.misses():
            return
        seen = [j for j in range(self.count) if (self.possible & ~self.known)[:, j].any()]
        for skipped in (0, prefix(self.kept, self.causal)):  # a sink hides where a stride begins
            rest = [j for j in seen if j >= skipped]
            found = _periodic([j for j in rest if self.is_whole(j)], rest)
            if found:
                self.strides.append(found)
                self.periods = min(self.periods, len(rest) / found.every)
                return self.know(_on(found, self.distance, self.i))

    def columns(self) -> tuple[int, ...]:
        """Single columns that are kept whole."""
        single = [j for j in range(self.count) if self.is_whole(j) and (self.kept & ~self.known)[:, j].any()]
        if len(single) > MOST_COLUMNS:
            return ()
        self.known[:, single] |= self.possible[:, single]
        return tuple(single)

    def is_whole(self, j: int) -> bool:
        return bool(self.kept[self.possible[:, j], j].all())

    def diagonals(self) -> None:
        """Strides over whole diagonals."""
        if not self.misses():
            return
        whole = [d for d in range(1 - self.count, self.count) if np.diagonal(self.kept, -d).all()]
        for stride, shown in _by_distance(whole, self.count, self.before, self.causal):
            self.strides.append(stride)
            self.periods = min(self.periods, shown)
            self.know(_on(stride, self.distance, self.i))


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
