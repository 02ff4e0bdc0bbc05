"""Which keys a few layers bring to one query token: exact at tokens, one token at a time."""

from __future__ import annotations

from collections.abc import Sequence

from patterncc.analysis.geometry.finite import keeps
from patterncc.analysis.geometry.union import Union
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
    i = np.arange(count)
    seen = np.zeros(t + 1, bool)
    seen[t] = True
    kept = {layer: _blocks(layer, i) for layer in set(layers)}
    idle: set[Union] = set()  # layers that bring nothing more
    for layer in reversed(layers):
        if layer in idle:
            continue
        padded = np.zeros(count * block, bool)
        padded[: t + 1] = seen
        tiles = padded.reshape(count, block)
        busy = np.asarray(tiles.any(1))
        last = np.where(busy, block - 1 - np.argmax(tiles[:, ::-1], 1), -1)  # the latest token seen in each block
        whole = kept[layer]
        below = np.any(whole & busy[:, None] & (i[None, :] < i[:, None]), axis=0)
        reached = np.repeat(below, block)[: t + 1]
        for b in np.flatnonzero(busy & whole.diagonal()):
            reached[b * block : b * block + last[b] + 1] = True
        if layer.window:
            reached |= _dilated(seen, layer.window[0] - 1)
        reached[: layer.sink] = True
        idle = {*idle, layer} if (seen | reached == seen).all() else set()
        seen = seen | reached
    return seen


def _blocks(layer: Union, i: np.ndarray) -> np.ndarray:
    whole = np.zeros((len(i), len(i)), bool)
    for term in layer.terms:
        whole |= keeps(term, i, len(i))
    return whole


def _dilated(seen: np.ndarray, back: int) -> np.ndarray:
    """Every token at most `back` before a seen one."""
    total = np.concatenate([[0], np.cumsum(seen)])
    end = np.minimum(np.arange(len(seen)) + back + 1, len(seen))
    return total[end] > total[:-1]
