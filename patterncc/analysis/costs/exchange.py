"""What devices must send each other when the context is split over them."""

from __future__ import annotations

from functools import lru_cache

from patterncc.analysis.geometry.extent import extent
from patterncc.analysis.geometry.finite import bits
from patterncc.analysis.geometry.union import union
from patterncc.ir.bitmap import draw_rows
from patterncc.ir.layout import KEY, Layout, Mask, Term
from patterncc.ir.tokens import touched
from patterncc.lazy import np


def exchanged_tokens(kept: tuple[Layout, ...], block: int, length: int, devices: int, causal: bool = True) -> int:
    """Key tokens that some device needs of one KV head and does not hold, summed over devices, which hold equal runs of
    whole blocks; a block is sent whole, the last one as far as the length goes: the `exchange_plan` of a package.

    >>> exchanged_tokens((Layout.parse("d<2"),), 64, 64 * 8, 4)
    192
    >>> exchanged_tokens((Layout.parse("-1<=d<2"),), 64, 64 * 8, 4, causal=False)
    384
    """
    rows = -(-length // block)
    whole = union(touched(layout, causal=causal, block=block) for layout in kept)
    bound, period = (rows, 1) if whole.opaque else extent(whole)
    j, times, first, stop = _asked(rows, devices, bound, period, causal)
    needed = np.zeros(len(j), bool)
    for term in whole.terms:
        needed |= _needed(term, j, first, stop)
    for random in whole.randoms:
        drawn = draw_rows(random, np.arange(rows))
        for low, high in runs_of(rows, devices):
            own = first == low
            needed[own] |= np.isin(j[own], drawn[low:high])
    for mask in whole.masks:
        for low, high in runs_of(rows, devices):
            own = first == low
            needed[own] |= _in_mask(mask, j[own], low, high)
    short = rows * block - length  # of the last block
    return int((needed * times).sum()) * block - short * int(needed[j == rows - 1].sum())


def dense_exchange(block: int, length: int, devices: int, causal: bool) -> int:
    """`exchanged_tokens` of a head that keeps everything.

    >>> dense_exchange(64, 1000, 4, causal=True), dense_exchange(64, 1000, 4, causal=False)
    (1536, 3000)
    """
    runs = [(first * block, min(stop * block, length)) for first, stop in runs_of(-(-length // block), devices)]
    return sum(first if causal else length - (stop - first) for first, stop in runs)


def runs_of(rows: int, devices: int) -> list[tuple[int, int]]:
    """The block rows of each device that holds any: equal runs, the last one shorter.

    >>> runs_of(5, 4)
    [(0, 2), (2, 4), (4, 5)]
    """
    share = max(-(-rows // devices), 1)
    return [(first, min(first + share, rows)) for first in range(0, rows, share)]


@lru_cache(maxsize=64)
def _asked(
    rows: int, devices: int, bound: int, period: int, causal: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Four arrays: the columns to test, device by device; how many columns each stands for; and the first and
    stop row of that device."""
    parts = [np.zeros((4, 0), np.int64)]
    for first, stop in runs_of(rows, devices):
        for low, high in ((0, first),) if causal else ((0, first), (stop, rows)):
            j, times = _columns(low, high, bound, period)
            parts.append(np.stack([j, times, np.full(len(j), first), np.full(len(j), stop)]))
    j, times, first, stop = np.concatenate(parts, axis=1)
    return j, times, first, stop


def _columns(low: int, high: int, bound: int, period: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns that represent all of low .. high-1, and how many columns each represents. All of low .. high-1 lie
    before, or all lie behind, the rows in question.

    Columns at least `bound` from 0 and from the rows are only seen at distances >= bound (<= -bound), so whether one of
    the rows keeps them depends on j mod period. The last column stands for itself.
    """
    middle = high - low - 2 * bound - 1
    if middle <= 2 * period:
        return np.arange(low, high), np.ones(high - low, np.int64)
    turns, rest = divmod(middle, period)
    times = np.ones(2 * bound + 1 + period, np.int64)
    times[bound : bound + period] = turns + (np.arange(period) < rest)
    return np.concatenate([np.arange(low, low + bound + period), np.arange(high - bound - 1, high)]), times


def _needed(term: Term, j: np.ndarray, first: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Whether some row first .. stop-1 keeps the column, elementwise; no column lies among these rows."""
    low = first if term.i_from is None else np.maximum(first, term.i_from)
    high = stop if term.i_to is None else np.minimum(stop, term.i_to)
    if term.d_from is not None:
        low = np.maximum(low, j + term.d_from)
    if term.d_to is not None:
        high = np.minimum(high, j + term.d_to)
    if term.width < term.every and term.anchor != KEY:
        behind = (low - j - term.offset) % term.every
        low = np.where(behind < term.width, low, low + term.every - behind)
    kept = low < high
    if term.j_from is not None:
        kept &= j >= term.j_from
    if term.j_to is not None:
        kept &= j < term.j_to
    if term.width < term.every and term.anchor == KEY:
        kept &= (j - term.offset) % term.every < term.width
    return kept


def _in_mask(mask: Mask, j: np.ndarray, first: int, stop: int) -> np.ndarray:
    some = np.any(bits(mask)[first:stop], axis=0)  # past the mask's last row: no row, so nothing
    return (j < mask.columns) & some[np.minimum(j, mask.columns - 1)]
