"""Which columns a tile of rows keeps, numbered by slots: the part of the kernels that is written for a pattern."""

import triton
import triton.language as tl


@triton.jit
def progression(low, high, every, residue):
    """The least column >= low that is residue modulo every, and how many such columns lie below high."""
    first = low + ((residue - low) % every + every) % every
    return first, tl.maximum(high - first + every - 1, 0) // every


@triton.jit
def search(p_sorted, low, high, bound, FROM_END: tl.constexpr):
    """The first place in low..high whose number is not below bound: soon, when that is near one end."""
    step = 1
    while low < high:
        middle = (low + high) // 2
        if FROM_END:
            middle = tl.maximum(middle, high - step)
        else:
            middle = tl.minimum(middle, low + step - 1)
        is_below = tl.load(p_sorted + middle) < bound
        low = tl.where(is_below, middle + 1, low)
        high = tl.where(is_below, high, middle)
        step *= 2
    return low


# --- index map: row and slot to column ---
# class 0: j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 0
# class 1: j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 1
# class 2: j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 2
# class 3: j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 3
# and 8 classes more
CLASS_INTS = ((), (), (), (), (), (), (), (), (), (), (), ())


@triton.jit
def index_map(pattern, columns, i_first, i_last, j_first, j_whole, j_stop):
    """The slots of row i_first: those below `far` hold columns that the row keeps whole and that lie below j_whole."""
    pattern += i_first.to(tl.int64) * 3
    low, whole, stop = tl.load(pattern), tl.load(pattern + 1), tl.load(pattern + 2)
    if j_first > 0:
        low = search(columns, low, whole, j_first, False)
    far = search(columns, low, whole, j_whole, True) - low
    return far.to(tl.int32), (stop - low).to(tl.int32), (columns + low, stop - low), (whole - low,)


@triton.jit
def column(slot, places, IS_FAR: tl.constexpr):
    """The column in a slot."""
    columns, count = places
    return tl.load(columns + slot, mask=slot < count, other=0)


@triton.jit
def keeps(slot, i_first, i_last, j, t_first, t_last, u, rule):
    """Whether one of the query tokens t_first..t_last, of rows i_first..i_last, keeps key token u, of the column j in
    this slot: but for causality."""
    (whole,) = rule
    keep = slot < whole
    return keep


# --- end index map ---
