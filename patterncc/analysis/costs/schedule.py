"""How evenly processors are loaded when tiles are launched heaviest first."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapreplace

from patterncc.analysis.costs.weights import Weights
from patterncc.lazy import np

TILES = 1 << 14  # beyond, a tile is so small a share that the bound tells as much


def busiest(heads: Sequence[Weights], rows: int, processors: int) -> float:
    """The busiest processor's token pairs over the mean one's, each block row of each head a tile given to the least
    loaded processor; for very many tiles the bound 1 + heaviest tile x processors / total, which no such schedule
    exceeds.

    >>> weights = Weights(np.array([1, 1]), np.array([6, 2]))
    >>> busiest([weights, weights], 2, 2)
    1.0
    """
    total = sum(head.total(rows)[1] for head in heads)
    if not total:
        return 1.0
    if rows * len(heads) > TILES:
        top = max(max(int(head.tokens[:rows].max()), head.row(rows - 1)[1]) for head in heads)
        return 1 + top * processors / total
    tiles = np.concatenate([_all(head, rows) for head in heads])
    load = [0] * processors
    for tile in np.sort(tiles)[::-1].tolist():
        heapreplace(load, load[0] + tile)
    return max(load) * processors / total


def _all(head: Weights, rows: int) -> np.ndarray:
    if rows <= len(head.tokens):
        return head.tokens[:rows]
    i = np.arange(rows)
    turns = np.maximum((i - head.start) // head.period, 0)
    k = i - turns * head.period
    growth = head.tokens[np.minimum(k + head.period, len(head.tokens) - 1)] - head.tokens[k]
    return head.tokens[k] + turns * growth
