"""Tiles of dQ, 64 rows, that items add to in a fixed order: how consumers leave them, and the warp that adds them.

A tile in memory has a count of the items that have added to it. The item that is the n-th to add waits until the count
is n, adds its own, or stores it if it is the first, and then sets the count to n + 1. So one program at a time adds to
a tile, in the order of the table, and the sums are the same whoever has taken which item.

The count is read with acquire, and set with release by one thread behind a barrier of the warp: what all of its lanes
have added or stored is there before the next item's warp goes on.
"""

from ..tiles import HEAD_DIM
from .box import FOUR_WARPS, noted
from .names import arrive, barrier, gl, gluon, wait
from .tiles import ROWS

HALF = gl.constexpr(HEAD_DIM.value // 2)  # columns of dQ that a consumer makes
STRIP = gl.constexpr(16)  # rows that are added at a time, of 32 columns
STRIPS = gl.constexpr(ROWS.value // STRIP.value * (HEAD_DIM.value // 32))
TOLD = gl.constexpr(2)  # numbers of a tile: its number, below 0 if there is none, and how many items come before
LINES = gl.constexpr(gl.BlockedLayout([1, 4], [4, 8], [1, 1], [1, 0]))  # of a strip


@gluon.jit
def tell_tile(told_tile, n, number):
    """Leave one of the numbers that the adder is told of a tile, at place n."""
    told_tile.index(n).store(gl.full([1], number, gl.int32, FOUR_WARPS))


@gluon.jit
def leave_half(W: gl.constexpr, b_dq, tile, rank, turn, tiles):
    """Leave half W of the columns of a slot's dQ, once the tile before has been taken."""
    _grads, halves, told_tile, _made, tile_full, tile_empty = tiles
    wait(tile_empty, (turn & 1) ^ 1)
    halves.index(W).store(b_dq)
    if W == 0:
        tell_tile(told_tile, 0, tile)
        tell_tile(told_tile, 1, rank)
    arrive(tile_full, count=1)


@gluon.jit
def tell_end(W: gl.constexpr, turn, tiles):
    """Behind the last item: there are no more tiles."""
    _grads, _halves, told_tile, _made, tile_full, tile_empty = tiles
    wait(tile_empty, (turn & 1) ^ 1)
    if W == 0:
        tell_tile(told_tile, 0, -1)
    arrive(tile_full, count=1)


@gluon.jit
def add_tiles(dq_sums, added, strips, told_tile, tile_full, tile_empty):
    """Add each tile that consumers leave to dq_sums, when it is its turn."""
    o_row = gl.expand_dims(gl.arange(0, STRIP, gl.SliceLayout(1, LINES)), 1)
    o_strip = o_row * 32 + gl.expand_dims(gl.arange(0, 32, gl.SliceLayout(0, LINES)), 0)
    phase = 0
    wait(tile_full, 0)
    tile = noted(told_tile, 0)
    while tile >= 0:
        rank = noted(told_tile, 1)
        p_count = added + tile
        while gl.atomic_add(p_count, 0, sem="acquire", scope="gpu") != rank:
            pass
        p = dq_sums + tile.to(gl.int64) * (ROWS * HEAD_DIM) + o_strip
        if rank == 0:
            for n in range(STRIPS):
                gl.store(p, strips.index(n).load(LINES))
                p += STRIP * 32
        else:
            for n in range(STRIPS):
                gl.atomic_add(p, strips.index(n).load(LINES), sem="relaxed", scope="gpu")
                p += STRIP * 32
        barrier()
        arrive(tile_empty, count=1)
        gl.atomic_xchg(p_count, rank + 1, sem="release", scope="gpu")
        phase ^= 1
        wait(tile_full, phase)
        tile = noted(told_tile, 0)
