"""Which rows an item of dK and dV reads, numbered by slots: near ones by the pattern's own row map, or those at the
distances of one stride.
"""

import triton
import triton.language as tl

from .row_map import keeps_near, row, row_map
from .tiles import BLOCK, BLOCK_BITS, late_zero, runs

# --- constants: facts of the pattern, set by patterncc ---
IS_CAUSAL = tl.constexpr(True)
# --- end constants ---


@triton.jit
def span(i_first, i_whole, i_full, i_stop, d_low, d_high):
    """`row_map` for rows that keep all columns of the tile, at distances d_low <= d < d_high from each."""
    stop_0 = tl.maximum(i_full - i_whole, 0)
    i_edge = tl.maximum(i_first, tl.minimum(i_whole, i_stop))
    stop_1 = stop_0 + i_edge - i_first
    i_last = tl.maximum(i_edge, i_full)
    stop_2 = stop_1 + tl.maximum(i_stop - i_last, 0)
    return stop_0, stop_2, (i_whole, stop_0, i_first - stop_0, stop_1, i_last - stop_1), (d_low, d_high)


@triton.jit
def columns_at(p_item, BLOCK_N: tl.constexpr):
    """(j_first, every, o_first): an item's first column, the distance between its columns, and the first key of the
    item within a column that has several tiles."""
    o_first = tl.load(p_item + 4) * BLOCK_N if BLOCK_N < BLOCK else 0
    return tl.load(p_item + 2), tl.load(p_item + 3), tl.cast(o_first, tl.int32)


@triton.jit
def slots_of(p_member, p_item, pattern, rows, q_start, q_stop, kv_stop, IS_STRIDE: tl.constexpr, BLOCK_N: tl.constexpr):
    """(head, far, all, places, rule): a head of an item, and the slots of its rows that keep the item's columns, as
    `row_map` gives them.

    Numbers that are the same for all heads are computed anew for each (see `late_zero`).
    """
    head = tl.load(p_member)
    p_item += late_zero(head)
    j_first, every, o_first = columns_at(p_item, BLOCK_N)
    j_last = tl.minimum(j_first + ((o_first + BLOCK_N - 1) >> BLOCK_BITS) * every, (kv_stop - 1) >> BLOCK_BITS)
    # the rows that may keep them: from i_whole to i_full they are whole, and past all of the keys
    i_first = q_start >> BLOCK_BITS
    i_whole = (q_start + BLOCK - 1) >> BLOCK_BITS
    i_full = q_stop >> BLOCK_BITS
    i_stop = (q_stop + BLOCK - 1) >> BLOCK_BITS
    if IS_CAUSAL:
        i_first = tl.maximum(i_first, j_first)
        i_whole = tl.maximum(i_whole, j_last + 1)
    if IS_STRIDE:
        d_low, d_high = tl.load(p_item + 5), tl.load(p_item + 6)
        i_first = tl.maximum(i_first, j_first + d_low)
        i_whole = tl.maximum(i_whole, j_last + d_low)
        i_full = tl.minimum(i_full, j_first + d_high)
        i_stop = tl.minimum(i_stop, j_last + d_high)
        n_far, n_slots, places, rule = span(i_first, i_whole, i_full, i_stop, d_low, d_high)
    else:
        p_class = pattern + tl.load(p_member + 1)
        n_far, n_slots, places, rule = row_map(p_class, rows, j_first, j_last, i_first, i_whole, i_full, i_stop)
    return head, n_far, n_slots, places, rule


@triton.jit
def portion(tiles, p_item, head, IS_ALL: tl.constexpr):
    """(first, stop) of the item's part of the tiles; the parts are equal."""
    if IS_ALL:
        return 0, tiles
    else:
        p_item += late_zero(head)
        part, part_count = tl.load(p_item + 7), tl.load(p_item + 8)
        whole, rest = tiles // part_count, tiles % part_count
        return whole * part + rest * part // part_count, whole * (part + 1) + rest * (part + 1) // part_count


@triton.jit
def row_in(slot, places, IS_STRIDE: tl.constexpr, IS_FAR: tl.constexpr):
    """The row in a slot."""
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
def locate_rows(tile, places, q_start, IS_STRIDE: tl.constexpr, BLOCK_M: tl.constexpr):
    """The rows of q at which the runs of a far tile begin. [BLOCK_M], or one for all."""
    slot, o_run = runs(tile, BLOCK, BLOCK_M)
    return (row_in(slot, places, IS_STRIDE, True) * BLOCK + o_run - q_start).to(tl.uint32)


@triton.jit
def keeps_in(slot, i, j, t, u, rule, IS_STRIDE: tl.constexpr):
    """Whether an item of this kind adds query token t, of row i, to key token u, of column j."""
    if IS_STRIDE:
        d_low, d_high = rule
        return (i - j >= d_low) & (i - j < d_high)
    else:
        return keeps_near(slot, i, j, t, u, rule)


@triton.jit
def keys_at(first, j_base, every, BLOCK_N: tl.constexpr):
    """(j, u): columns and positions of the BLOCK_N keys from tile `first` on, of columns j_base, j_base + every, ...
    Both [BLOCK_N]."""
    slot, o_run = runs(first, BLOCK, BLOCK_N)
    j = j_base + slot * every + tl.zeros([BLOCK_N], tl.int32)
    return j, j * BLOCK + o_run + (tl.arange(0, BLOCK_N) & (BLOCK - 1))
