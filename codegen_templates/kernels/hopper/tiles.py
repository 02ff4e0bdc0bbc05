"""Tiles of the Hopper kernels: which a program takes, where they lie, and which keys a warpgroup of their rows keeps.

A tile has CONSUMERS * 64 positions of one query head. Keys come in slots of 64 tokens: the columns that the index map
counts, 64 // BLOCK of them in a slot or a part of one; where it is a table, that is one of tiles (`columns.py`). All
partitions of a program walk the slots of a tile in the same order, from the last slot down: first the edge, where the
exact rule says what is kept, then the far ones, which every row keeps whole.
"""

from ..index_map import index_map, rule_of
from ..tiles import BLOCK, BLOCK_BITS, BLOCK_D, IS_TABLE, columns_of, request
from .names import gl, gluon

WIDTH = gl.constexpr(max(BLOCK_D.value, 64))  # numbers of a row as the kernels hold it: those past HEAD_DIM are 0
ROWS = gl.constexpr(64)  # of a consumer, and keys of a slot
BITS = gl.constexpr(12)  # of an entry of a table, below its column: for the rows of the tile
NOTHING = gl.constexpr(1 << 30)  # a row behind every tensor's end: a box there is filled with zeros


@gluon.jit
def tile_start(t, CONSUMERS: gl.constexpr):
    """Where the first tile of queries from position t on begins: a table says what tiles at certain positions keep."""
    if IS_TABLE:
        step: gl.constexpr = CONSUMERS * ROWS
        return t - (t % step + step) % step
    else:
        return t & -ROWS


@gluon.jit
def tile_place(tile, tiles, heads, groups, starts, ends, CONSUMERS: gl.constexpr, PAGE: gl.constexpr,
               IS_PACKED: gl.constexpr):  # fmt: skip
    """Where a tile lies: (request, head, KV head, place in the pattern), (first row of q and of k), (its first
    position, the queries' first and last + 1, the keys'). A tile that a packed request does not have begins behind its
    queries.

    Tiles are numbered request by request, head by head, the last positions first: they keep most keys.
    """
    q_starts, kv_starts = starts
    t_begin, q_start, q_stop, kv_start, kv_stop = ends
    i_both = tile // tiles
    i_batch = i_both // heads
    i_tile = tiles - 1 - (tile - i_both * tiles)
    p_group = groups + (i_both - i_batch * heads) * 3
    q_first, kv_first = 0, 0
    if IS_PACKED:
        q_first, q_len, kv_first, kv_len = request(i_batch, q_starts, kv_starts, PAGE)
        q_first = q_first.to(gl.int32)
        kv_first = kv_first.to(gl.int32)
        kv_stop = kv_len.to(gl.int32)
        q_stop = kv_stop
        q_start = kv_stop - q_len.to(gl.int32)
        t_begin = tile_start(q_start, CONSUMERS)
    t_base = gl.where(q_start < q_stop, gl.minimum(t_begin + i_tile * (CONSUMERS * ROWS), q_stop), q_stop)
    which = (i_batch, gl.load(p_group + 2), gl.load(p_group), gl.load(p_group + 1))
    return which, (q_first, kv_first), (t_base, q_start, q_stop, kv_start, kv_stop)


@gluon.jit
def request_of(i_batch, kv_first, kv_start, pages, s_pages, PAGE: gl.constexpr, IS_PACKED: gl.constexpr):
    """(i_request, kv_first, kv_start), pages: the request's number in descriptors, the row and the position of its
    first key, and where its pages are listed."""
    i_request = i_batch
    if IS_PACKED:
        i_request = 0 * i_batch
    if PAGE:
        pages += i_batch.to(gl.int64) * s_pages
    return (i_request, kv_first, kv_start), pages


@gluon.jit
def slots_of(pattern, columns, span, CONSUMERS: gl.constexpr):
    """The columns of a tile: how many there are, what the index map needs to find them, what the rule needs, and the
    slots of 64 keys: all of them, of which there is always one, and the far ones, which are numbered first."""
    t_base, q_start, q_stop, kv_start, kv_stop = span
    t_first = gl.maximum(t_base, q_start)
    t_last = gl.minimum(t_base + CONSUMERS * ROWS, q_stop) - 1
    if IS_TABLE:
        i_tile = t_base // (CONSUMERS * ROWS)
        low, high = kv_start >> BLOCK_BITS << BITS, kv_stop >> BLOCK_BITS << BITS
        n_far, n_slots, places, _ = index_map(pattern, columns, i_tile, i_tile, low, high, 0)
        rule = rule_of(pattern, columns, i_tile)
    else:
        n_far, n_slots, places, rule = columns_of(pattern, columns, t_first, t_last, kv_start, kv_stop)
    n_all = (n_slots * BLOCK + ROWS - 1) // ROWS
    return n_slots, places, rule, gl.maximum(n_all, 1), n_far * BLOCK // ROWS


@gluon.jit
def after(place, phase, STAGES: gl.constexpr):
    """The next place in a ring, and the parity of its barrier there."""
    place += 1
    turn = place == STAGES
    return gl.where(turn, 0, place), gl.where(turn, phase ^ 1, phase)
