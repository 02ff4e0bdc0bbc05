"""Block pairs one by one, for what `weights` counts: which are kept whole, drawn or masked, which may be kept in part,
and the token pairs of these that are kept."""

from __future__ import annotations

from patterncc.analysis.geometry.finite import bits, holds
from patterncc.analysis.geometry.residues import INFINITY
from patterncc.analysis.geometry.union import Union
from patterncc.ir.bitmap import draw_rows
from patterncc.ir.layout import Layout
from patterncc.lazy import np


def whole_pairs(layout: Layout, whole: Union, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Whether the block pairs (i, j) are kept whole, elementwise."""
    kept = np.zeros(i.shape, bool)
    for term in whole.terms:
        kept |= holds(term, i, j)
    if layout.mask:
        mask = bits(layout.mask)
        inside = (i < layout.mask.rows) & (j < layout.mask.columns)
        kept[inside] |= mask[i[inside], j[inside]]
    if layout.random:
        kept |= (draw_rows(layout.random, i) == j[:, None]).any(1)
    return kept


def drawn(layout: Layout, whole: Union, rows: int, causal: bool) -> np.ndarray:
    """The rows of the block pairs that random and mask parts keep and the terms do not."""
    pairs: list[np.ndarray] = [np.zeros((0, 2), np.int64)]
    if layout.random:
        drawn = draw_rows(layout.random, np.arange(rows))
        i = np.nonzero(drawn >= 0)[0]
        pairs.append(np.stack([i, drawn[drawn >= 0]], 1))
    if layout.mask:
        some = np.argwhere(bits(layout.mask)[:rows, :rows])
        pairs.append(some[some[:, 1] <= some[:, 0]] if causal else some)
    i, j = (pairs[1] if len(pairs) == 2 else np.unique(np.concatenate(pairs), axis=0)).T  # one part has no pair twice
    kept = np.zeros(len(i), bool)
    for term in whole.terms:
        kept |= holds(term, i, j)
    return i[~kept]


def part_pairs(layout: Layout, causal: bool, block: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The block pairs that a window or a sink may keep in part: a few distances, and the column that the sink cuts."""
    i = np.arange(rows)
    pairs = [np.zeros((0, 2), np.int64)]
    distances: set[int] = set()
    if layout.window:
        before, after = layout.window
        distances |= set(range(before // block, -(-(before - 1) // block) + 1)) | {0}
        distances |= set() if causal else {-d for d in range(after // block, -(-(after - 1) // block) + 1)}
    for low, high in layout.bands:
        distances |= set(range(low // block, -(-(low + block - 1) // block)))
        distances |= set() if high is None else set(range(high // block, -(-(high - 1) // block) + 1))
    pairs += [np.stack([i, i - d], 1) for d in sorted(distances)]
    if layout.sink % block:
        cut = layout.sink // block
        pairs.append(np.stack([i, np.full(rows, cut)], 1)[~np.isin(i - cut, sorted(distances))])
    both = np.concatenate(pairs)  # no pair is among them twice
    both = both[(both[:, 1] >= 0) & (both[:, 1] < rows)]
    return tuple((both[both[:, 1] <= both[:, 0]] if causal else both).T)


def tokens_of(
    layout: Layout, causal: bool, block: int, i: np.ndarray, j: np.ndarray, height: int = 0, width: int = 0
) -> np.ndarray:
    """The token pairs that window and sink keep in block pairs, elementwise; `height` and `width` cut the blocks."""
    a, b = np.arange(height or block)[:, None], np.arange(width or block)[None, :]
    counts = np.zeros(len(i), np.int64)
    first_cut = layout.sink // block
    reach = max([0, *(layout.window or ()), *(high or low for low, high in layout.bands)]) // block + 2
    kind = np.clip(i - j, -reach, reach) * 2 + (j == first_cut)
    whole_sink = j < first_cut
    for k in np.unique(kind):
        d, cut = int(k) // 2, bool(int(k) % 2)
        lag = d * block + a - b
        kept = np.zeros(lag.shape, bool)
        if layout.window:
            kept |= (lag < layout.window[0]) & (lag > -layout.window[1])
        for low, high in layout.bands:
            kept |= (lag >= low) & (lag < (high or INFINITY))
        if cut:
            kept |= np.broadcast_to(b < layout.sink - first_cut * block, lag.shape)
        counts[kind == k] = int((kept & (lag >= 0)).sum() if causal else kept.sum())
        some = (kind == k) & whole_sink
        counts[some] = int((lag >= 0).sum()) if causal else lag.size
    return counts
