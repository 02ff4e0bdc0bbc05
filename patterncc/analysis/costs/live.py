"""Which keys a KV head must still hold after so many tokens: what a compact cache keeps, exact at tokens.

A key u < N is live after N tokens iff a query token t >= N - 1 of the KV head's query heads, the newest or a later
one, may attend it. Let n be the block of token N - 1. A block part keeps column j for some row i >= n iff the last
row that it keeps of the column is >= n: `last_rows`, by arithmetic. A window holds u >= N - before (for t = N - 1), a
sink u < sink. Random rows may draw any column at any time, so a head with a random part keeps everything; a mask
keeps nothing below its last row.

Theorem (growth). With every bound at most T and every stride dividing P, live(N + P B) = live(N) + c for N >= 2 T B,
the same c >= 0 for all such N. Proof. Columns j <= n - T are only kept at distances >= T, where being kept is
periodic: they are live iff they are kept forever, which for j >= T depends on j mod P. Columns j > n - T >= T move
with n by a period. So rows 0 .. 2 T + 2 P - 1 tell everything.

Lemma (peak). While N stays in one block, live(N) is linear between the ends of the block and the three lengths at
which the window's far end crosses a block's edge; so its largest value is at one of these.
Proof. The live blocks do not change with N; a token more is live or not by its block or the window, and the token
that the window drops is live by its block or not: both are constant between those lengths.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from patterncc.analysis.costs.last_rows import FOREVER, last_rows
from patterncc.analysis.costs.moved import moved
from patterncc.analysis.geometry.extent import extent
from patterncc.analysis.geometry.union import union
from patterncc.analysis.scopes import layouts
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout, Term
from patterncc.ir.tokens import whole_terms
from patterncc.lazy import np


@dataclass(frozen=True)
class Live:
    """How many keys are live after N tokens, for any number of lengths.

    last: the last row that keeps each column; FOREVER; -1: none. The columns are all, or the first ones: then the
    rest follows from the growth by `period` blocks from row `start` on (period 0: all are there)
    """

    last: np.ndarray
    before: int
    sink: int
    block: int
    start: int = 0
    period: int = 0

    def tokens(self, length: int, page: int = 1) -> int:
        """Live keys after `length` tokens; with a page size that divides the block, all places of the pages in which
        any key is live.

        >>> live_of([Layout.parse("d<2 | j%4==0")], 16, 10).tokens(9 * 16)
        64
        >>> live_of([Layout.parse("window 16,1 tokens")], 64, 4).tokens(200, page=16)  # keys 184 to 199
        32
        """
        if not length:
            return 0
        n = (length - 1) // self.block
        if self.period and n >= self.start + 2 * self.period:
            turns = (n - self.start) // self.period - 1
            less = length - turns * self.period * self.block
            return self.tokens(less, page) + turns * self._growth() * self.block
        alive = self.last[: n + 1] >= n
        sizes = np.full(n + 1, self.block)
        sizes[n] = -(-length // page) * page - n * self.block
        total = int(sizes[alive].sum())
        for j in {k for k in self._cut(n) if 0 <= k <= n and not alive[k]}:
            total += int(self._in_part(np.array([j]), np.array([length]), page)[0])
        return total

    def forever(self, columns: int) -> int:
        """How many of the first columns are never dropped."""
        known = min(columns, len(self.last))
        total = int((self.last[:known] == FOREVER).sum())
        turns, rest = divmod(columns - known, self.period) if self.period else (0, 0)
        return total + turns * self._growth() + int((self.last[known - self.period :][:rest] == FOREVER).sum())

    def peak(self, length: int, curve: tuple[np.ndarray, np.ndarray] | None = None) -> int:
        """The largest number of live keys after any number of tokens up to `length`. `curve` may be given if it
        has been computed for at least as many rows."""
        rows = -(-length // self.block)
        lengths, counts = curve or self.curve(min(rows, len(self.last) - 1))
        if self.period:  # the latest length that is a whole number of periods away has the most
            turns = np.maximum((length - lengths) // (self.period * self.block), 0)
            turns[lengths <= self.start * self.block] = 0
            counts = counts + turns * self._growth() * self.block
        return max(self.tokens(length), int(counts[lengths <= length].max(initial=0)))

    def _growth(self) -> int:
        """Columns of one period that are kept forever."""
        return int((self.last[self.start : self.start + self.period] == FOREVER).sum())

    def curve(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """(lengths, live keys) at the ends of the blocks 0 .. rows-1 and where a window's far end crosses an edge of a
        block."""
        block = self.block
        edges = {0, block - 1, *((self.before + k) % block for k in (-2, -1, 0) if self.before)}
        n = np.arange(rows)
        last = np.minimum(self.last[:rows], rows)
        ends = np.bincount(last[last >= n] + 1, minlength=rows + 2)  # a column dies after its last row
        # column j is live in rows j .. last(j); columns whose last row lies before themselves never are
        begins = np.bincount(n[last >= n], minlength=rows + 2)
        own = last >= n
        whole = np.cumsum(begins - ends)[:rows] - own  # live blocks, the current one left out
        lengths, counts = [], []
        for a in sorted(edges):
            total = whole * block + own * (a + 1)
            for k in self._offsets():
                j = n - k
                total = total + self._left(j, n, n * block + a + 1, rows)
            j = np.full(rows, self.sink // block)
            extra = self._left(j, n, n * block + a + 1, rows) if self.sink % block else 0
            counted = np.isin(n - j, self._offsets())
            lengths.append(n * block + a + 1)
            counts.append(total + np.where(counted, 0, extra))
        order = np.argsort(np.concatenate(lengths), kind="stable")
        return np.concatenate(lengths)[order], np.concatenate(counts)[order]

    def _left(self, j: np.ndarray, n: np.ndarray, lengths: np.ndarray, rows: int) -> np.ndarray:
        valid = (j >= 0) & (j <= n)
        column = np.clip(j, 0, rows - 1)
        valid &= self.last[column] < n
        return np.where(valid, self._in_part(column, lengths), 0)

    def _in_part(self, j: np.ndarray, length: np.ndarray, page: int = 1) -> np.ndarray:
        """The keys of block j that window or sink hold after `length` tokens, or the places of their pages."""
        low, high = j * self.block, np.minimum((j + 1) * self.block, length)
        end = -(-np.minimum(high, self.sink) // page) * page  # of what the sink holds
        sink = np.clip(end - low, 0, None)
        start = np.maximum(np.maximum(low, (length - self.before) // page * page), end)
        window = np.where(length - self.before < high, np.clip(-(-high // page) * page - start, 0, None), 0)
        return sink + (window if self.before else 0)

    def _offsets(self) -> list[int]:
        """Distances (in blocks) of the blocks that a window holds in part."""
        far = self.before // self.block
        return sorted({0, *range(max(far - 1, 0), far + 2)}) if self.before else []

    def _cut(self, n: int) -> set[int]:
        return {n - k for k in self._offsets()} | ({self.sink // self.block} if self.sink else set())


def _as_read(layout: Layout) -> Layout:
    """A layout with equally many live keys whose bands are windows: later rows attend all that a window as long as the
    band's far end would hold."""
    if not layout.bands:
        return layout
    if layout.bands[-1][1] is None:
        return Layout((Term(),))
    far = max(high or 0 for _, high in layout.bands)
    return replace(layout, bands=(), window=(max(far, layout.window[0] if layout.window else 0), 1))


def live_of(kept: list[Layout] | tuple[Layout, ...], block: int, rows: int) -> Live:
    """The live keys of heads that share one KV head, for lengths of up to so many blocks."""
    kept = [_as_read(layout) for layout in kept]
    whole = union(replace(x, terms=x.terms + whole_terms(x, causal=True, block=block)) for x in kept)
    before = whole.window[0] if whole.window else 0
    start = period = 0
    if not whole.opaque:
        bound, step = extent(whole)
        bound = max(bound, before // block + 2, whole.sink // block + 1)
        if 2 * (bound + step) + 1 < rows:
            start, period, rows = 2 * bound, step, 2 * (bound + step)
    return Live(last_rows(whole, rows + 1), before, whole.sink, block, start, period)


@dataclass(frozen=True)
class Held:
    """What one KV head holds: the live keys after N tokens, their peak, and the columns that are never dropped."""

    tokens: int
    peak: int
    forever: int


def held(kept: tuple[Layout, ...], block: int, length: int, page: int = 1) -> Held:
    """Live keys after `length` tokens (in whole pages, see `Live.tokens`), their peak and the columns that are never
    dropped. Heads whose layouts are moved copies of others (`moved`) are computed from those.

    >>> held((Layout.parse("d<2 | j%4==1"),), 16, 160)
    Held(tokens=64, peak=64, forever=3)
    """
    rows = -(-length // block)
    found = moved(kept, block)
    by, heads = 0, kept
    if found is not None and rows > found.by + 2 * found.reach + 4:
        by, heads = found.by, found.first
    live, curve = _known(heads, block, length // block + 1)
    less = length - by * block
    return Held(live.tokens(less, page), live.peak(less, curve), live.forever(rows - by))


@lru_cache(maxsize=64)
def _known(kept: tuple[Layout, ...], block: int, rows: int) -> tuple[Live, tuple[np.ndarray, np.ndarray]]:
    live = live_of(kept, block, rows)
    return live, live.curve(min(rows, len(live.last) - 1))


def live_tokens(classes: Classes, layer: int, kv_head: int, length: int) -> int:
    """The number of keys u < length that a query token t >= length - 1 of the KV head's query heads may attend."""
    group = classes.shape(layer).group
    heads = tuple(range(kv_head * group, (kv_head + 1) * group))
    kept = layouts(classes, layer, heads)
    if not classes.causal:
        return length
    return live_of(kept, classes.block, length // classes.block + 1).tokens(length)
