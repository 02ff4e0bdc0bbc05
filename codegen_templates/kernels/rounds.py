"""The rounds of dK and dV: which rows a tile of keys reads in each, numbered by slots.

Round 0 is the pattern's own row map. Every later round is about one stride, whose rows are those at its distances.
"""

import triton
import triton.language as tl

from .row_map import keeps_near, row, row_map
from .tiles import BLOCK, runs


@triton.jit
def span(i_first, i_whole, i_full, i_stop, d_low, d_high):
    """As `row_map`, of rows that keep all columns of the tile, at distances d_low <= d < d_high from each."""
    stop_0 = tl.maximum(i_full - i_whole, 0)
    i_edge = tl.maximum(i_first, tl.minimum(i_whole, i_stop))
    stop_1 = stop_0 + i_edge - i_first
    i_last = tl.maximum(i_edge, i_full)
    stop_2 = stop_1 + tl.maximum(i_stop - i_last, 0)
    return stop_0, stop_2, (i_whole, stop_0, i_first - stop_0, stop_1, i_last - stop_1), (d_low, d_high)


@triton.jit
def slots_of(p_member, pattern, rows, bounds, ROUND: tl.constexpr):
    """A head of the program, and the slots of its rows that keep columns j_first..j_last, as `row_map` says them."""
    j_first, j_last, i_first, i_whole, i_full, i_stop, d_low, d_high = bounds
    head = tl.load(p_member)
    if ROUND:
        # + 0, but known only now: addresses and masks that no head changes would hold registers from the start
        late = head >> 31
        whole, full = i_whole + late, i_full + late
        n_far, n_slots, places, rule = span(i_first + late, whole, full, i_stop + late, d_low, d_high)
    else:
        p_class = pattern + tl.load(p_member + 1)
        n_far, n_slots, places, rule = row_map(p_class, rows, j_first, j_last, i_first, i_whole, i_full, i_stop)
    return head, n_far, n_slots, places, rule


@triton.jit
def row_in(slot, places, IS_STRIDE: tl.constexpr, IS_FAR: tl.constexpr):
    """The row in a slot of this round."""
    if IS_STRIDE:
        first_0, stop_0, first_1, stop_1, first_2 = places
        i = first_0 + slot
        if not IS_FAR:
            i = tl.where(slot < stop_0, i, first_1 + slot)
            i = tl.where(slot < stop_1, i, first_2 + slot)
        return i
    else:
        return row(slot, places, IS_FAR)


@triton.jit
def locate_rows(tile, places, q_start, ROUND: tl.constexpr, BLOCK_M: tl.constexpr):
    """The rows of q at which the runs of a far tile begin. [BLOCK_M], or one for all."""
    slot, o_run = runs(tile, BLOCK, BLOCK_M)
    return (row_in(slot, places, ROUND > 0, True) * BLOCK + o_run - q_start).to(tl.uint32)


@triton.jit
def keeps_in(slot, i, j, t, u, rule, IS_STRIDE: tl.constexpr):
    """Whether this round is the one that adds query token t, of row i, to key token u, of column j."""
    if IS_STRIDE:
        d_low, d_high = rule
        return (i - j >= d_low) & (i - j < d_high)
    else:
        return keeps_near(slot, i, j, t, u, rule)


@triton.jit
def keys_at(first, j_base, every, BLOCK_N: tl.constexpr):
    """Columns and positions of the BLOCK_N keys from tile `first` on, of columns j_base, j_base + every, ..."""
    slot, o_run = runs(first, BLOCK, BLOCK_N)
    j = j_base + slot * every + tl.zeros([BLOCK_N], tl.int32)
    return j, j * BLOCK + o_run + (tl.arange(0, BLOCK_N) & (BLOCK - 1))
