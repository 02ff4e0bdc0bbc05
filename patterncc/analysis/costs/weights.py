"""How much each block row of a head keeps: blocks, and token pairs, exactly.

Theorem (weights). Causal; every bound of the parts at most T blocks, every stride dividing P. Then for rows i >= 2 T,
w(i + P) = w(i) + g(i mod P), for kept blocks and for token pairs alike. So rows 0 .. 2 T + 2 P - 1 give the weight of
every row, and the sum of any number of rows, in time that does not depend on the length.
Proof. Split row i at j < T, d < T, and the middle. (i, j) -> (i + P, j) pairs off the first with row i + P (d >= T
stays so), (i, j) -> (i + P, j + P) the second. In the middle whether a pair is kept depends on j mod P and d mod P
only; row i + P has P more columns there, which together hold each residue of j once: what they add depends on i mod
P. Random parts are drawn row by row and masks looked at, as far as the length goes.

A block that only a window or a sink touches is kept in part: at most two distances to either side, and one column.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from patterncc.analysis.costs.moved import Moved, moved
from patterncc.analysis.costs.pairs import drawn, part_pairs, tokens_of, whole_pairs
from patterncc.analysis.geometry.box import Box
from patterncc.analysis.geometry.budget import DEFAULT, Budget
from patterncc.analysis.geometry.extent import extent
from patterncc.analysis.geometry.finite import keeps
from patterncc.analysis.geometry.gaps import Gaps
from patterncc.analysis.geometry.residues import INFINITY, Arc, merge, sieve
from patterncc.analysis.geometry.union import Union, union
from patterncc.errors import UsageError
from patterncc.ir.layout import Layout
from patterncc.ir.tokens import whole_terms
from patterncc.lazy import np

MOST_ROWS = 1 << 22  # counted one by one: a quarter of a minute, 1.5 GB


@dataclass(frozen=True)
class Weights:
    """Kept blocks (any token pair kept) and kept token pairs of whole block rows, for the first rows; from `start` on
    w(i + period) = w(i) + growth(i). Period 0: the arrays hold all rows."""

    blocks: np.ndarray
    tokens: np.ndarray
    start: int = 0
    period: int = 0

    def total(self, rows: int) -> tuple[int, int]:
        """(blocks, token pairs) of rows 0 .. rows - 1."""
        return self._sum(self.blocks, rows), self._sum(self.tokens, rows)

    def row(self, i: int) -> tuple[int, int]:
        """(blocks, token pairs) of row i."""
        if i < len(self.blocks):
            return int(self.blocks[i]), int(self.tokens[i])
        turns, k = divmod(i - self.start, self.period)
        k += self.start
        blocks, tokens = (int(w[k]) + turns * (int(w[k + self.period]) - int(w[k])) for w in (self.blocks, self.tokens))
        return blocks, tokens

    def _sum(self, w: np.ndarray, rows: int) -> int:
        if rows <= len(w) or not self.period:
            return int(w[:rows].sum())
        total = int(w[: self.start].sum())
        base = w[self.start : self.start + self.period].astype(object)
        growth = w[self.start + self.period : self.start + 2 * self.period].astype(object) - base
        turns, more = divmod(rows - self.start, self.period)
        total += int(base.sum()) * turns + int(growth.sum()) * (turns * (turns - 1) // 2)
        return total + int((base[:more] + growth[:more] * turns).sum())


def weights(layout: Layout, causal: bool, block: int, rows: int, budget: Budget = DEFAULT) -> Weights:
    """The weights of a head's rows; not causal: of a square of so many rows.

    >>> weights(Layout.parse("d<2 | j%4==0"), True, 16, 6).blocks.tolist()
    [1, 2, 3, 3, 3, 3]
    >>> weights(Layout.parse("window 5,1 tokens"), True, 4, 3).tokens.tolist()
    [10, 20, 20]
    """
    whole = _whole(layout, causal, block)
    if layout.random or layout.mask or not causal:
        return _weights(whole, layout, causal, block, rows, budget)
    bound, period = extent(whole)
    if layout.window:
        bound = max(bound, layout.window[0] // block + 2)
    bound = max(bound, layout.sink // block + 1, *((high or low) // block + 2 for low, high in layout.bands))
    endless = 2 * (bound + period) < rows
    count = 2 * (bound + period) if endless else rows
    found = moved((layout,), block)
    if found is None:
        first = _weights(whole, layout, causal, block, count, budget)
    else:
        first = _by_move(found, block, count)
    return Weights(first.blocks, first.tokens, 2 * bound, period) if endless else first


def _by_move(found: Moved, block: int, rows: int) -> Weights:
    """The weights of a layout that is another one with its residues moved."""
    by, (whole, near) = min(found.by, rows), (_once(x[0], block, rows) for x in (found.first, found.near))
    blocks, tokens = near.blocks.copy(), near.tokens.copy()
    blocks[by:] += (whole.blocks - near.blocks)[: rows - by]
    tokens[by:] += (whole.tokens - near.tokens)[: rows - by]
    return Weights(blocks, tokens)


@lru_cache(maxsize=64)
def _once(layout: Layout, block: int, rows: int) -> Weights:
    return _weights(_whole(layout, True, block), layout, True, block, rows, DEFAULT)


def token_pairs(layout: Layout, causal: bool, block: int, length: int, known: Weights | None = None) -> int:
    """Kept token pairs among the first `length` tokens.

    >>> token_pairs(Layout.parse("window 5,1 tokens"), True, 4, 7)
    25
    """
    rows, rest = divmod(length, block)
    known = known or weights(layout, causal, block, rows + (rest > 0))
    if not rest:
        return known.total(rows)[1]
    full = known.total(rows)[1]
    if not causal:
        full -= _last_column(layout, block, rows, rest)
    if not known.period or rows < known.start + 2 * known.period:
        return full + _part_row(layout, causal, block, rows, rest)
    turns, k = divmod(rows - known.start, known.period)  # the theorem holds for the first tokens of rows as well
    early, late = (_part_row(layout, causal, block, known.start + k + n * known.period, rest) for n in (0, 1))
    return full + early + turns * (late - early)


def _whole(layout: Layout, causal: bool, block: int) -> Union:
    """The layout's blocks that are kept whole as terms, random parts and masks left out."""
    terms = layout.terms + whole_terms(layout, causal=causal, block=block)
    return union([replace(layout, terms=terms, random=None, mask=None)])


def _weights(whole: Union, layout: Layout, causal: bool, block: int, rows: int, budget: Budget) -> Weights:
    """The blocks and token pairs of each of `rows` rows, counted row by row; UsageError where these are too many."""
    if rows > MOST_ROWS:
        raise UsageError(
            f"{rows:,} block rows would have to be counted one by one (random, mask or not causal parts, or a stride "
            f"as long); the most is {MOST_ROWS:,}",
            "take a shorter length",
        )
    i = np.arange(rows)
    kept = (i + 1 if causal else np.full(rows, rows)).astype(np.int64)
    region = Box(d0=0 if causal else -INFINITY, j1=rows, i1=rows).tight()
    for gap in Gaps(region, whole.terms, budget):
        kept -= _missing(gap.box, gap.key, gap.query, rows)
    if layout.random or layout.mask:
        np.add.at(kept, drawn(layout, whole, rows, causal), 1)
    diagonal = whole_pairs(layout, whole, i, i) if causal else np.zeros(rows, bool)
    tokens = (kept - diagonal) * block * block + diagonal * (block * (block + 1) // 2)
    if not (layout.window or layout.bands or layout.sink % block):
        return Weights(kept, tokens)
    part_i, part_j = part_pairs(layout, causal, block, rows)
    left = ~whole_pairs(layout, whole, part_i, part_j)
    part_i, part_j = part_i[left], part_j[left]
    counts = tokens_of(layout, causal, block, part_i, part_j)
    blocks = kept.copy()
    np.add.at(blocks, part_i, (counts > 0).astype(np.int64))
    np.add.at(tokens, part_i, counts)
    return Weights(blocks, tokens)


def _missing(box: Box, key: frozenset[Arc], query: frozenset[Arc], rows: int) -> np.ndarray:
    """For each row, the columns of the box outside the arcs."""
    i = np.arange(rows)
    low = np.maximum(box.j0, i - box.d1 + 1) if box.d1 != INFINITY else np.full(rows, box.j0)
    high = np.minimum(box.j1, i - box.d0 + 1) if box.d0 != -INFINITY else np.full(rows, box.j1)
    low, high = low.astype(np.int64), np.minimum(high, rows).astype(np.int64)
    inside = (i >= box.i0) & (i < box.i1) & (low < high)
    count = np.zeros(rows, np.int64)
    low, high, at = low[inside], high[inside], i[inside]
    if not len(at):
        return count
    if not query:
        free = np.concatenate([[0], np.cumsum(~_sieved(key, 0, rows))])
        count[inside] = free[high] - free[low]
    elif not key:
        free = np.concatenate([[0], np.cumsum(~_sieved(query, -rows, 2 * rows))])
        count[inside] = free[at - low + rows + 1] - free[at - high + 1 + rows]
    else:
        j0, j1 = int(box.j0), int(min(box.j1, rows))
        d0, d1 = int(max(box.d0, -rows)), int(min(box.d1, rows))
        columns, distances = ~_sieved(key, j0, j1 - j0), ~_sieved(query, d0, d1 - d0)
        sums = _convolved(columns, distances)  # entry k: pairs with j + d = j0 + d0 + k
        k = at - (j0 + d0)
        count[inside] = np.where((k >= 0) & (k < len(sums)), sums[np.clip(k, 0, len(sums) - 1)], 0)
    return count


def _sieved(arcs: frozenset[Arc], low: int, count: int) -> np.ndarray:
    held = merge(arcs)
    return np.ones(count, bool) if held is None else sieve(held, low, count)


def _convolved(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The convolution of two count arrays, rounded to whole numbers. The Fourier transform's error is far below 1/2 for
    counts up to 2**30."""
    size = len(a) + len(b) - 1
    spectrum = np.fft.rfft(a.astype(float), size) * np.fft.rfft(b.astype(float), size)
    return np.rint(np.fft.irfft(spectrum, size)).astype(np.int64)


def _part_row(layout: Layout, causal: bool, block: int, row: int, height: int) -> int:
    """The token pairs of the first `height` tokens of a block row; not causal: the last column is as wide."""
    whole = _whole(layout, causal, block)
    j = np.arange(row + 1)
    i = np.full(row + 1, row)
    kept = whole_pairs(layout, whole, i[:1], j[:1]) if row == 0 else _row_whole(layout, whole, row)
    total = int(kept[:-1].sum()) * block * height
    if kept[-1]:
        total += height * (height + 1) // 2 if causal else height * height
    left = np.flatnonzero(~kept[:-1])
    total += int(tokens_of(layout, causal, block, i[left], j[left], height).sum())
    if not kept[-1]:
        total += int(tokens_of(layout, causal, block, i[-1:], j[-1:], height, height)[0])
    return total


def _row_whole(layout: Layout, whole: Union, row: int) -> np.ndarray:
    kept = np.zeros(row + 1, bool)
    for part in (*whole.terms, *(p for p in (layout.random, layout.mask) if p is not None)):
        kept |= keeps(part, np.array([row]), row + 1)[0]
    return kept


def _last_column(layout: Layout, block: int, rows: int, width: int) -> int:
    """Not causal: what the full rows keep of the last column beyond its first `width` tokens."""
    whole = _whole(layout, False, block)
    i, j = np.arange(rows), np.full(rows, rows)
    kept = whole_pairs(layout, whole, i, j)
    over = int(kept.sum()) * block * (block - width)
    i, j = i[~kept], j[~kept]
    full = tokens_of(layout, False, block, i, j)
    part = tokens_of(layout, False, block, i, j, 0, width)
    return over + int((full - part).sum())
