"""The last row that keeps each column, by arithmetic: from then on nobody reads it."""

from __future__ import annotations

from patterncc.analysis.geometry.finite import bits
from patterncc.analysis.geometry.union import Union
from patterncc.ir.layout import KEY, Term
from patterncc.lazy import np

FOREVER = 1 << 60


def last_rows(kept: Union, columns: int) -> np.ndarray:
    """The last row i >= j that keeps column j whole, for the columns 0 .. columns-1: FOREVER if there is none, -1 if no
    row does."""
    j = np.arange(columns)
    last = np.full(columns, -1, np.int64)
    for term in kept.terms:
        np.maximum(last, _last(term, j), out=last)
    for mask in kept.masks:
        some = bits(mask)[:, :columns]
        rows = np.where(some.any(0), mask.rows - 1 - np.argmax(some[::-1], 0), -1)
        last[: some.shape[1]] = np.maximum(last[: some.shape[1]], rows)
    if kept.randoms:
        last[:] = FOREVER
    last[last < j] = -1
    return last


def _last(term: Term, j: np.ndarray) -> np.ndarray:
    low = np.maximum(j + max(term.d_from or 0, 0), max(term.i_from or 0, 0))
    high = np.full(len(j), FOREVER)
    if term.d_to is not None:
        high = np.minimum(high, j + term.d_to)
    if term.i_to is not None:
        high = np.minimum(high, term.i_to)
    last = high - 1
    kept = (j >= (term.j_from or 0)) & (low < high)
    if term.j_to is not None:
        kept &= j < term.j_to
    if term.width < term.every:
        if term.anchor == KEY:
            kept &= (j - term.offset) % term.every < term.width
        else:
            over = (last - j - term.offset) % term.every
            last = np.where((high < FOREVER) & (over >= term.width), last - (over - term.width + 1), last)
            kept &= last >= low
    return np.where(kept, np.where(high == FOREVER, FOREVER, last), -1)
