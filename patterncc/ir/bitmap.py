"""A rectangle of a layout as booleans: whether row i keeps column j. Used where there is no closed form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from patterncc.ir.layout import KEY, Layout, Mask, Random, Term
from patterncc.ir.table import Table, check_size
from patterncc.lazy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELLS = 1 << 22  # of a bitmap that a pass holds at a time
DRAWS = 1 << 17  # columns drawn at a time
_SEED, _ROW, _DRAW = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def bitmap(layout: Layout, rows: range, columns: range, *, causal: bool) -> NDArray[np.bool_]:
    """Which of the given rows keep which of the given columns: [len(rows), len(columns)].

    The layout's parts given in tokens are not looked at: see `patterncc.ir.tokens.touched`.

    >>> bitmap(Layout.parse("d<1 | j%3==0"), range(4, 6), range(6), causal=True).astype(int).tolist()
    [[1, 0, 0, 1, 1, 0], [1, 0, 0, 1, 0, 1]]
    """
    keep = np.zeros((len(rows), len(columns)), dtype=np.bool_)
    i = np.arange(rows.start, rows.stop)[:, None]  # [rows, 1]
    j = np.arange(columns.start, columns.stop)[None, :]  # [1, columns]
    for term in layout.terms:
        _add_term(keep, term, i, j)
    if layout.chunk:
        keep |= i // layout.chunk == j // layout.chunk
    if layout.mask:
        _add_mask(keep, layout.mask, rows, columns)
    if layout.random:
        drawn = draw_rows(layout.random, i[:, 0])
        inside = (drawn >= columns.start) & (drawn < columns.stop)
        keep[np.nonzero(inside)[0], drawn[inside] - columns.start] = True
    if causal:
        keep &= j <= i
    return keep


def table_of_bitmaps(bitmaps: Iterable[NDArray[np.bool_]]) -> Table:
    """The table whose rows are those of the bitmaps, one after the other; each begins at column 0.

    >>> print(table_of_bitmaps([np.eye(2, dtype=bool), np.ones((1, 3), dtype=bool)]))
    0: 0
    1: 1
    2: 0-2
    """
    pointers, columns, entries = [np.zeros(1, dtype=np.int64)], [np.zeros(0, dtype=np.int32)], 0
    for keep in bitmaps:
        rows, width = keep.shape
        found = np.flatnonzero(keep)
        starts = np.arange(rows + 1) * width
        ends = np.searchsorted(found, starts)
        columns.append((found - np.repeat(starts[:-1], np.diff(ends))).astype(np.int32))
        pointers.append(entries + ends[1:])
        entries += len(found)
        check_size(0, 0, entries)
    return Table(np.concatenate(pointers), np.concatenate(columns))


def draw_rows(random: Random, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """`patterncc.ir.draw.draw` of many rows at once: [len(rows), blocks], unsorted, -1 where a row draws fewer.

    >>> draw_rows(Random(blocks=3, seed=0), np.array([-1, 1, 100])).tolist()
    [[-1, -1, -1], [0, 1, -1], [51, 16, 100]]
    """
    first = np.arange(random.blocks)[None, :]
    drawn = np.where(first <= rows[:, None], first, -1)
    many = np.flatnonzero(rows >= random.blocks)
    some = max(1, DRAWS // max(random.blocks, 1))
    for start in range(0, len(many), some):
        at = many[start : start + some]
        drawn[at] = _draw(random, rows[at, None])
    return drawn


def _draw(random: Random, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """[rows, blocks] of the rows [rows, 1], which draw fewer than all: Floyd's sampling without its loop.

    Draw k takes x_k, or top_k = top_0 + k where x_k has been taken. Once x has been drawn it is taken, by that draw or
    before it; and top_m is taken iff draw m took it. So x_k has been taken iff x_k = x_m for some m < k (neighbours in
    sorted order), or x_k = top_m for some m < k which took its top: a chain downwards, followed until nothing changes.
    """
    k = np.arange(random.blocks)[None, :]  # [1, blocks]
    top = rows + (1 - random.blocks + k)
    x = (_mix(random.seed, rows, k) % (top + 1).astype(np.uint64)).astype(np.int64)
    ordered = np.sort(x << 8 | k, axis=1)
    again = np.zeros(x.shape, dtype=np.bool_)
    again[:, 1:] = ordered[:, 1:] >> 8 == ordered[:, :-1] >> 8
    line = np.arange(len(rows))[:, None] * random.blocks  # where each row starts among all draws
    taken = np.zeros(x.size, dtype=np.bool_)
    taken[(line + (ordered & 255))[again]] = True
    linked = (x >= top[:, :1]) & (x < top) & ~taken.reshape(x.shape)
    above, below = (line + k)[linked], (line + x - top[:, :1])[linked]
    while (new := taken[below]).any():
        taken[above[new]] = True
        above, below = above[~new], below[~new]
    return np.where(taken.reshape(x.shape), top, x)


def _mix(seed: int, rows: NDArray[np.int64], k: NDArray[np.int64]) -> NDArray[np.uint64]:
    """63 bits for each row and draw."""
    u = np.uint64
    with np.errstate(over="ignore"):
        z = u(seed) * u(_SEED) + rows.astype(u) * u(_ROW) + k.astype(u) * u(_DRAW)
        z = (z ^ (z >> u(30))) * u(_ROW)
        z = (z ^ (z >> u(27))) * u(_DRAW)
    return (z ^ (z >> u(31))) >> u(1)


def _add_term(keep: NDArray[np.bool_], term: Term, i: NDArray[np.int64], j: NDArray[np.int64]) -> None:
    """Set what a term keeps, looking only at the part of the rectangle that its bounds leave."""
    rows = slice(*np.searchsorted(i[:, 0], _bounds(term.i_from, term.i_to)))
    i = i[rows]
    if not len(i):
        return
    near = None if term.d_from is None else i[-1, 0] - term.d_from + 1
    far = None if term.d_to is None else i[0, 0] - term.d_to + 1
    low, high = _bounds(term.j_from, term.j_to), _bounds(far, near)
    columns = slice(*np.searchsorted(j[0], (max(low[0], high[0]), min(low[1], high[1]))))
    j = j[:, columns]
    kept: NDArray[np.bool_] = np.ones((1, 1), dtype=np.bool_)
    if term.every > 1:
        x = j if term.anchor == KEY else i - j
        kept = (x - term.offset) % term.every < term.width
    if term.d_from is not None:
        kept = kept & (j <= i - term.d_from)
    if term.d_to is not None:
        kept = kept & (j > i - term.d_to)
    keep[rows, columns] |= kept


def _bounds(low: int | None, high: int | None) -> tuple[int, int]:
    far = np.iinfo(np.int64).max
    return -far if low is None else low, far if high is None else high


def _add_mask(keep: NDArray[np.bool_], mask: Mask, rows: range, columns: range) -> None:
    low, high = max(rows.start, 0), min(rows.stop, mask.rows)
    left, right = max(columns.start, 0), min(columns.stop, mask.columns)
    if low >= high or left >= right:
        return
    first, last = low * mask.columns, high * mask.columns  # bits
    packed = np.frombuffer(mask.bits, dtype=np.uint8)[first // 8 : -(-last // 8)]
    bits = np.unpackbits(packed)[first % 8 :][: last - first].reshape(-1, mask.columns)
    keep[low - rows.start : high - rows.start, left - columns.start : right - columns.start] |= bits[
        :, left:right
    ].astype(np.bool_)
