"""Which rows keep the columns of a tile, numbered by slots: the inverse of the index map, which dK and dV run over."""

import triton
import triton.language as tl

from .index_map import progression, search  # noqa: F401 (what strides and tables read)

# --- index map: column and slot to row ---
# class 0: j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 0
# class 1: j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 1
# class 2: j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 2
# class 3: j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 3
# and 8 classes more
CLASS_INTS = ((), (), (), (), (), (), (), (), (), (), (), ())
STRIDES = ()


@triton.jit
def row_map(pattern, rows, j_first, j_last, i_first, i_whole, i_full, i_stop):
    """The slots of the rows that keep column j_first: those below `far` keep it whole and are whole and past it."""
    pattern += j_first.to(tl.int64) * 3
    start, part, stop = tl.load(pattern), tl.load(pattern + 1), tl.load(pattern + 2)
    low = search(rows, start, part, i_whole, False)
    high = search(rows, low, part, tl.maximum(i_whole, i_full), True)
    places = (rows, low, high - low, start, low - start, high, stop)
    return (high - low).to(tl.int32), (stop - start).to(tl.int32), places, (part - start,)


@triton.jit
def row(slot, places, IS_FAR: tl.constexpr):
    """The row in a slot: first the far ones, then those before them, then those after them."""
    rows, low, far, start, before, high, stop = places
    at = low + slot
    if not IS_FAR:
        at = tl.where(slot < far, at, start + slot - far)
        at = tl.where(slot < far + before, at, high + slot - far - before)
    return tl.load(rows + at, mask=at < stop, other=0)


@triton.jit
def keeps_near(slot, i, j, t, u, rule):
    """Whether query token t, of the row i in this slot, keeps key token u, of column j: but for causality."""
    (whole,) = rule
    keep = slot < whole
    return keep


@triton.jit
def stride(pattern, ROUND: tl.constexpr):
    """A table has no strides."""
    return 0, 0, 1, 0, 0


# --- end index map ---
