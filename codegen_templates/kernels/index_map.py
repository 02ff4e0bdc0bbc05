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
# class 0: 0<=d<2 | 2<=d & j%4==0
# class 1: 0<=d<2 | 2<=d & j%4==1
# class 2: 0<=d<2 | 2<=d & j%4==2
# class 3: 0<=d<2 | 2<=d & j%4==3
# columns of CLASS_INTS: residue
CLASS_INTS = ((0,), (1,), (2,), (3,))


@triton.jit
def index_map(pattern, columns, i_first, i_last, j_first, j_whole, j_stop):
    """(far, all, places, rule) of rows i_first..i_last: how many slots are far, how many there are in all, and what
    `column` and `keeps` need. places: for zone n, first_n is its first column less its first slot, stop_n the slot
    behind it."""
    residue = tl.load(pattern)
    # far: columns below j_whole that every row keeps
    low, count = progression(j_first, tl.minimum(j_whole, i_first - 1), 4, residue)
    first_0 = low
    stop_0 = count
    low = tl.maximum(j_first, i_last - 1)
    first_1 = low - stop_0
    stop_1 = stop_0 + tl.maximum(j_whole - low, 0)
    # edge: around the distances at which the rule changes, then whatever is not below j_whole
    low = tl.maximum(j_first, tl.minimum(j_whole, i_first - 1))
    high = tl.maximum(low, tl.minimum(j_whole, i_last - 1))
    first_2 = low - stop_1
    stop_2 = stop_1 + high - low
    low = tl.maximum(high, j_whole)
    high = tl.maximum(low, j_stop)
    first_3 = low - stop_2
    stop_3 = stop_2 + high - low
    places = (first_0, stop_0, first_1, stop_1, first_2, stop_2, first_3)
    rule = (residue,)
    return stop_1, stop_3, places, rule


@triton.jit
def column(slot, places, IS_FAR: tl.constexpr):
    """The column in a slot."""
    first_0, stop_0, first_1, stop_1, first_2, stop_2, first_3 = places
    j = first_0 + slot * 4
    j = tl.where(slot < stop_0, j, first_1 + slot)
    if not IS_FAR:
        j = tl.where(slot < stop_1, j, first_2 + slot)
        j = tl.where(slot < stop_2, j, first_3 + slot)
    return j


@triton.jit
def keeps(slot, i_first, i_last, j, t_first, t_last, u, rule):
    """Whether one of the query tokens t_first..t_last, of rows i_first..i_last, keeps key token u, of the column j in
    this slot, ignoring the causal mask."""
    (residue,) = rule
    keep = (j <= i_last - 2) & ((j - residue) % 4 == 0)
    keep |= j > i_first - 2
    return keep


@triton.jit
def rule_of(pattern, columns, n):
    """The numbers of a class that `keeps` reads. n: any whole number."""
    _, _, _, rule = index_map(pattern, columns, n, n, n, n, n)
    return rule


# --- end index map ---
