"""What a layout keeps, token pair by token pair, straight from its definition: shares nothing with the passes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patterncc.ir.layout import KEY, Layout

_BITS = (1 << 64) - 1


def kept_blocks(layout: Layout, rows: range, columns: int) -> NDArray[np.bool_]:
    """[rows, columns]: blocks kept whole, before the causal cut."""
    i, j = np.meshgrid(np.arange(rows.start, rows.stop), np.arange(columns), indexing="ij")
    keep = np.zeros(i.shape, dtype=bool)
    for t in layout.terms:
        here = (((j if t.anchor == KEY else i - j) - t.offset) % t.every) < t.width
        for x, low, high in ((i - j, t.d_from, t.d_to), (j, t.j_from, t.j_to), (i, t.i_from, t.i_to)):
            here &= (x >= -(10**9) if low is None else x >= low) & (x < 10**9 if high is None else x < high)
        keep |= here
    if layout.chunk:
        keep |= i // layout.chunk == j // layout.chunk
    if layout.mask:
        for n in np.ndindex(keep.shape):
            row, column = i[n], j[n]
            if 0 <= row < layout.mask.rows and column < layout.mask.columns:
                byte, bit = divmod(int(row) * layout.mask.columns + int(column), 8)
                keep[n] |= bool(layout.mask.bits[byte] >> (7 - bit) & 1)
    if layout.random:
        for n, row in enumerate(rows):
            for column in drawn(row, layout.random.blocks, layout.random.seed):
                if column < columns:
                    keep[n, column] = True
    return keep


def kept_tokens(layout: Layout, length: int, *, causal: bool, block: int) -> NDArray[np.bool_]:
    """[length, length]: which query token attends which key token."""
    blocks = -(-length // block)
    keep = np.kron(kept_blocks(layout, range(blocks), blocks), np.ones((block, block), dtype=bool))[:length, :length]
    t, u = np.meshgrid(np.arange(length), np.arange(length), indexing="ij")
    if layout.window:
        keep |= (t - u < layout.window[0]) & (u - t < layout.window[1])
    for low, high in layout.bands:
        keep |= (t - u >= low) & (t - u < (10**9 if high is None else high))
    keep |= u < layout.sink
    return keep & (u <= t) if causal else keep


def table_lists(tokens: NDArray[np.bool_], block: int) -> list[list[int]]:
    """The columns of every row of which any token pair is kept."""
    length = len(tokens)
    starts = range(0, length, block)
    return [[j // block for j in starts if tokens[i : i + block, j : j + block].any()] for i in starts]


def drawn(row: int, blocks: int, seed: int) -> set[int]:
    """Floyd's sampling of `blocks` columns of 0..row."""
    if row + 1 <= blocks:
        return set(range(row + 1))
    chosen: set[int] = set()
    for k in range(blocks):
        z = (seed * 0x9E3779B97F4A7C15 + row * 0xBF58476D1CE4E5B9 + k * 0x94D049BB133111EB) & _BITS
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _BITS
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _BITS
        top = row + 1 - blocks + k
        x = ((z ^ (z >> 31)) >> 1) % (top + 1)
        chosen.add(top if x in chosen else x)
    return chosen
