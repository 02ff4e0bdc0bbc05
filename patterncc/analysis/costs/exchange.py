"""What devices must send each other when the context is split over them."""

from __future__ import annotations

from patterncc.analysis.geometry.extent import extent
from patterncc.analysis.geometry.finite import bits
from patterncc.analysis.geometry.union import union
from patterncc.ir.bitmap import draw_rows
from patterncc.ir.layout import KEY, Layout, Mask, Term
from patterncc.ir.tokens import touched
from patterncc.lazy import np


def exchanged_tokens(kept: tuple[Layout, ...], block: int, length: int, devices: int) -> int:
    """Key tokens that some device needs of one KV head and does not hold, summed over devices (causal; devices hold
    equal runs of whole blocks; a block is sent whole).

    >>> exchanged_tokens((Layout.parse("d<2"),), 64, 64 * 8, 4)
    192
    """
    rows = -(-length // block)
    share = -(-rows // devices)
    whole = union(touched(layout, causal=True, block=block) for layout in kept)
    bound, period = extent(whole)
    total = 0
    for device in range(1, devices):
        first, stop = device * share, min((device + 1) * share, rows)
        if first >= stop:
            break
        j, times = _columns(first, first if whole.opaque else bound, period)
        needed = np.zeros(len(j), bool)
        for random in whole.randoms:
            drawn = draw_rows(random, np.arange(first, stop))
            needed[drawn[(drawn >= 0) & (drawn < first)]] = True
        for term in whole.terms:
            needed |= _needed(term, j, first, stop)
        for mask in whole.masks:
            needed |= _in_mask(mask, j, first, stop)
        total += int((needed * times).sum()) * block
    return total


def _columns(first: int, bound: int, period: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns that stand for all of 0 .. first-1, and for how many each stands.

    Columns j with bound <= j < first - bound are only seen at distances >= bound, so whether one of fixed rows keeps
    them depends on j mod period.
    """
    middle = first - 2 * bound
    if middle <= 2 * period:
        return np.arange(first), np.ones(first, np.int64)
    turns, rest = divmod(middle, period)
    times = np.ones(2 * bound + period, np.int64)
    times[bound : bound + period] = turns + (np.arange(period) < rest)
    return np.concatenate([np.arange(bound + period), np.arange(first - bound, first)]), times


def _needed(term: Term, j: np.ndarray, first: int, stop: int) -> np.ndarray:
    """Whether some row first .. stop-1 keeps the column, elementwise."""
    low = np.maximum(np.maximum(first, j + (term.d_from or 0)), term.i_from or 0)
    high = np.full(len(j), stop)
    if term.d_to is not None:
        high = np.minimum(high, j + term.d_to)
    if term.i_to is not None:
        high = np.minimum(high, term.i_to)
    kept = (j >= (term.j_from or 0)) & (j < (stop if term.j_to is None else term.j_to))
    if term.width < term.every:
        if term.anchor == KEY:
            kept &= (j - term.offset) % term.every < term.width
        else:
            behind = (low - j - term.offset) % term.every
            low = np.where(behind < term.width, low, low + term.every - behind)
    return kept & (low < high)


def _in_mask(mask: Mask, j: np.ndarray, first: int, stop: int) -> np.ndarray:
    some = np.any(bits(mask)[first:stop], axis=0)  # past the mask's last row: no row, so nothing
    return (j < mask.columns) & some[np.minimum(j, mask.columns - 1)]
