"""The part of a tile's keys that each program of the forward kernel reads.

Usually several programs share out what one class keeps. Where the query heads of a KV head keep the same near columns
and different far ones, a tile has programs of all these heads for the near columns, and some of each class for the far
ones: no key is loaded twice. The parts of a row are then those of the near programs and those of its class's.
"""

import triton
import triton.language as tl

from .tiles import BLOCK_BITS

SHARE = tl.constexpr(5)  # numbers of a program in `shares`: the distance in blocks that it stays below, or, negative,
# that it begins at; its number among the programs of these columns, and how many those are; the part of its rows that
# it makes; and how many programs make parts of any row of the KV head. Its first programs are of one KV head each, in
# order, and of all its heads, each in the place that it has in other programs too.


@triton.jit
def share(shares, splits):
    """(i_tile, tiles, i_split, sharers, i_part): the tile and how many there are; this program's number among those of
    its columns and how many these are; and the part of its rows that it makes."""
    if shares is None:
        i_split = tl.program_id(0) % splits
        return tl.program_id(0) // splits, tl.num_programs(0) // splits, i_split, splits, i_split
    else:
        shares += tl.program_id(1) * SHARE
        i_split, sharers, i_part = tl.load(shares + 1), tl.load(shares + 2), tl.load(shares + 3)
        return tl.program_id(0), tl.num_programs(0), i_split, sharers, i_part


@triton.jit
def own_keys(shares, t_last, kv_first, kv_start, kv_stop):
    """(kv_first, kv_start, kv_stop) of the keys that are this program's, of a tile whose last position is t_last."""
    near = tl.load(shares + tl.program_id(1) * SHARE)
    bound = tl.maximum(kv_start, ((t_last >> BLOCK_BITS) + 1 - tl.abs(near)) << BLOCK_BITS)
    start = tl.where(near > 0, bound, kv_start)
    return kv_first + (start - kv_start).to(tl.int64), start, tl.where(near > 0, kv_stop, tl.minimum(kv_stop, bound))


@triton.jit
def merged(groups, shares, splits, o_m, late, BLOCK_Q: tl.constexpr, BLOCK_H: tl.constexpr, MERGED: tl.constexpr):
    """(i_shared, i_part, programs, p_heads, m_part): which tile is merged by one program, of all in the launch; this
    one's part of it; how many programs have parts; where the heads of the merged rows are; and which rows this one has.
    All is worked out anew, see late_zero."""
    m_part = o_m < MERGED
    if shares is None:
        p_group = groups + tl.program_id(1) * (2 + BLOCK_H)
        i_program = tl.program_id(0) + late
        i_shared = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * (tl.num_programs(0) // splits)
        return i_shared + i_program // splits, i_program % splits, splits, p_group + 2, m_part
    else:
        i_group = tl.program_id(1) + late
        p_group, shares = groups + i_group * (2 + BLOCK_H), shares + i_group * SHARE
        i_kv = tl.load(p_group)
        i_shared = (i_kv * tl.num_programs(2) + tl.program_id(2)) * tl.num_programs(0) + tl.program_id(0)
        m_part &= tl.load(p_group + 2 + o_m // BLOCK_Q) >= 0
        return i_shared, tl.load(shares + 3), tl.load(shares + 4), groups + i_kv * (2 + BLOCK_H) + 2, m_part
