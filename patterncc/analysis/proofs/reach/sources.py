"""Which keys a few layers bring to one query token: exact at tokens, one token at a time."""

from __future__ import annotations

from collections.abc import Sequence

from patterncc.analysis.geometry.finite import bits, keeps
from patterncc.analysis.geometry.union import Union
from patterncc.ir.bitmap import draw_rows
from patterncc.ir.layout import KEY, Term
from patterncc.lazy import np


def sources(layers: Sequence[Union], t: int, block: int) -> np.ndarray:
    """bool [t + 1]: the keys u from which information flows through the causal layers, the first one first, to t.

    >>> from patterncc.analysis.geometry.union import union
    >>> from patterncc.ir.layout import Layout
    >>> window = union([Layout.parse("window 3,1 tokens")])
    >>> sources([window, window], 6, 4).tolist()
    [False, False, True, True, True, True, True]
    """
    count = t // block + 1
    seen = np.zeros(t + 1, bool)
    seen[t] = True
    idle: set[Union] = set()  # layers that bring nothing more
    for layer in reversed(layers):
        if layer in idle:
            continue
        padded = np.zeros(count * block, bool)
        padded[: t + 1] = seen
        tiles = padded.reshape(count, block)
        busy = np.asarray(tiles.any(1))
        last = np.where(busy, block - 1 - np.argmax(tiles[:, ::-1], 1), -1)  # the latest token seen in each block
        below, own = _kept_by(layer, busy)
        inside = (np.arange(block)[None, :] <= last[:, None]) & (busy & own)[:, None]  # [blocks, block]
        reached = (inside | below[:, None]).reshape(-1)[: t + 1]
        if layer.window:
            reached |= _dilated(seen, layer.window[0] - 1)
        for low, high in layer.bands:
            reached[: max(len(seen) - low, 0)] |= _dilated(seen[low:], (high or low + len(seen)) - low - 1)
        reached[: layer.sink] = True
        idle = {*idle, layer} if (seen | reached == seen).all() else set()
        seen = seen | reached
        if seen.all():
            break
    return seen


def _kept_by(layer: Union, busy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays: for each column whether some busy row beyond it keeps it whole, and for each row whether it keeps its
    own column."""
    n = len(busy)
    i = np.arange(n)
    below, own = np.zeros(n, bool), np.zeros(n, bool)
    for term in layer.terms:
        if term.width >= term.every or term.anchor == KEY:
            below |= _by_range(term, busy)
        else:
            below |= (keeps(term, i, n) & busy[:, None] & (i[None, :] < i[:, None])).any(0)
        own |= _keeps_own(term, i)
    rows = np.flatnonzero(busy)
    for random in layer.randoms:
        drawn = draw_rows(random, i)
        own |= (drawn == i[:, None]).any(1)
        some = drawn[rows]
        below[some[(some >= 0) & (some < rows[:, None])]] = True
    for mask in layer.masks:
        square = np.zeros((n, n), bool)
        known = bits(mask)[:n, :n]
        square[: known.shape[0], : known.shape[1]] = known
        own |= square.diagonal()
        below |= (np.tril(square, -1) & busy[:, None]).any(0)
    return below, own


def _by_range(term: Term, busy: np.ndarray) -> np.ndarray:
    """Whether a busy row beyond it keeps each column, by a term without a residue of the distance."""
    n = len(busy)
    j = np.arange(n)
    low = np.maximum(j + max(term.d_from or 1, 1), term.i_from or 0)
    high = np.full(n, n if term.i_to is None else min(term.i_to, n))
    if term.d_to is not None:
        high = np.minimum(high, j + term.d_to)
    total = np.concatenate([[0], np.cumsum(busy)])
    kept = total[np.clip(high, 0, n)] > total[np.clip(low, 0, n)]
    kept &= j >= (term.j_from or 0)
    if term.j_to is not None:
        kept &= j < term.j_to
    if term.width < term.every:
        kept &= (j - term.offset) % term.every < term.width
    return kept


def _keeps_own(term: Term, i: np.ndarray) -> np.ndarray:
    kept = np.full(len(i), (term.d_from or 0) <= 0 and (term.d_to is None or term.d_to > 0))
    for low, high in ((term.i_from, term.i_to), (term.j_from, term.j_to)):
        kept &= i >= (low or 0)
        if high is not None:
            kept &= i < high
    if term.width < term.every:
        kept &= ((i if term.anchor == KEY else 0) - term.offset) % term.every < term.width
    return kept


def _dilated(seen: np.ndarray, back: int) -> np.ndarray:
    """Every token at most `back` before a seen one."""
    total = np.concatenate([[0], np.cumsum(seen)])
    end = np.minimum(np.arange(len(seen)) + back + 1, len(seen))
    return total[end] > total[:-1]
