"""Which rows keep the columns of a tile, numbered by slots: the inverse of the index map, which dK and dV run over."""

import triton
import triton.language as tl

from .index_map import progression, search  # noqa: F401 (what strides and tables read)

# --- index map: column and slot to row ---
# class 0: 0<=d<2 | 2<=d & j%4==0
# class 1: 0<=d<2 | 2<=d & j%4==1
# class 2: 0<=d<2 | 2<=d & j%4==2
# class 3: 0<=d<2 | 2<=d & j%4==3
CLASS_INTS = ((), (), (), ())
STRIDES = (((4, 0, 2, 1073741824, 0), (4, 1, 2, 1073741824, 0), (4, 2, 2, 1073741824, 0), (4, 3, 2, 1073741824, 0)),)


@triton.jit
def row_map(pattern, rows, j_first, j_last, i_first, i_whole, i_full, i_stop):
    """(far, all, places, rule) of the rows that are near columns j_first..j_last: how many slots are far, how many
    there are in all, and what `row` and `keeps_near` need. places: for zone n, first_n is its first row less its first
    slot, stop_n the slot behind it."""
    # far: whole rows, past all of the columns, that keep each of them
    low = i_whole
    first_0 = low
    stop_0 = tl.maximum(tl.minimum(i_full, j_first + 2) - low, 0)
    # edge: rows before i_whole, around the distances at which the rule changes, and from i_full on
    low = i_first
    high = tl.maximum(low, tl.minimum(i_whole, i_stop))
    first_1 = low - stop_0
    stop_1 = stop_0 + high - low
    low = tl.maximum(high, tl.minimum(i_full, j_first + 2))
    high = tl.maximum(low, tl.minimum(i_full, j_last + 2))
    first_2 = low - stop_1
    stop_2 = stop_1 + high - low
    low = tl.maximum(high, i_full)
    high = tl.maximum(low, i_stop)
    first_3 = low - stop_2
    stop_3 = stop_2 + high - low
    places = (first_0, stop_0, first_1, stop_1, first_2, stop_2, first_3)
    rule = ()
    return stop_0, stop_3, places, rule


@triton.jit
def row(slot, places, IS_FAR: tl.constexpr):
    """The row in a slot."""
    first_0, stop_0, first_1, stop_1, first_2, stop_2, first_3 = places
    i = first_0 + slot
    if not IS_FAR:
        i = tl.where(slot < stop_0, i, first_1 + slot)
        i = tl.where(slot < stop_1, i, first_2 + slot)
        i = tl.where(slot < stop_2, i, first_3 + slot)
    return i


@triton.jit
def keeps_near(slot, i, j, t, u, rule):
    """Whether query token t, of the near row i in this slot, adds to key token u, of column j, ignoring the causal
    mask."""
    keep = i - j < 2
    return keep


@triton.jit
def rule_of(pattern, rows, n):
    """The numbers of a class that `keeps_near` reads. n: any whole number."""
    _, _, _, rule = row_map(pattern, rows, n, n, n, n, n, n)
    return rule


# --- end index map ---
