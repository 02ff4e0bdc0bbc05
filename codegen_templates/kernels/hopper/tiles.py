"""Tiles of the Hopper kernels: which a program takes, where they lie, and which keys a warpgroup of their rows keeps.

A tile has CONSUMERS * 64 positions of one query head. Keys come in slots of 64 tokens: the columns that the index map
counts, 64 // BLOCK of them in a slot or a part of one. All partitions of a program walk the slots of a tile in the same
order, from the last slot down: first the edge, where the exact rule says what is kept, then the far ones, which every
row keeps whole.
"""

from ..index_map import column, keeps
from ..tiles import BLOCK, BLOCK_BITS, IS_CAUSAL, columns_of, request
from .names import gl, gluon

ROWS = gl.constexpr(64)  # of a consumer, and keys of a slot
NOTHING = gl.constexpr(1 << 30)  # a row behind every tensor's end: a box there is filled with zeros


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
        t_begin = q_start & -ROWS
    t_base = gl.where(q_start < q_stop, gl.minimum(t_begin + i_tile * (CONSUMERS * ROWS), q_stop), q_stop)
    which = (i_batch, gl.load(p_group + 2), gl.load(p_group), gl.load(p_group + 1))
    return which, (q_first, kv_first), (t_base, q_start, q_stop, kv_start, kv_stop)


@gluon.jit
def slots_of(pattern, columns, span, CONSUMERS: gl.constexpr):
    """The columns of a tile: how many there are, what the index map needs to find them, what the rule needs, and the
    slots of 64 keys: all of them, of which there is always one, and the far ones, which are numbered first."""
    t_base, q_start, q_stop, kv_start, kv_stop = span
    t_first = gl.maximum(t_base, q_start)
    t_last = gl.minimum(t_base + CONSUMERS * ROWS, q_stop) - 1
    n_far, n_slots, places, rule = columns_of(pattern, columns, t_first, t_last, kv_start, kv_stop)
    n_all = (n_slots * BLOCK + ROWS - 1) // ROWS
    return n_slots, places, rule, gl.maximum(n_all, 1), n_far * BLOCK // ROWS


@gluon.jit
def first_key(n, places):
    """The column of slot n, its number, and the slot's first key: where a slot lies within one column."""
    PARTS: gl.constexpr = BLOCK // ROWS
    i_slot = n // PARTS
    j = column(i_slot, places, False)
    return i_slot, j, j * BLOCK + n % PARTS * ROWS


@gluon.jit
def keys_of(n, places, layout: gl.constexpr):
    """The keys of slot n: their columns' numbers, their columns (one for all where a slot lies within a column) and
    positions. [64]"""
    o_n = gl.arange(0, ROWS, layout)
    if BLOCK >= ROWS:
        i_slot, j, u_first = first_key(n, places)
        u = u_first + o_n
    else:
        i_slot = n * (ROWS // BLOCK) + (o_n >> BLOCK_BITS)
        j = column(i_slot, places, False)
        u = j * BLOCK + (o_n & (BLOCK - 1))
    return i_slot, j, u


@gluon.jit
def is_kept(n, n_slots, places, rule, span, t_low, s_layout: gl.constexpr):
    """Whether one of the rows t_low..t_low + 63 keeps a key of slot n."""
    _t_base, q_start, q_stop, kv_start, kv_stop = span
    t_first = gl.maximum(t_low, q_start)
    t_last = gl.minimum(t_low + ROWS, q_stop) - 1
    i_slot, j, u = keys_of(n, places, gl.SliceLayout(0, s_layout))
    some = keeps(i_slot, t_first >> BLOCK_BITS, t_last >> BLOCK_BITS, j, t_first, t_last, u, rule)
    if len(some.shape) == 0:  # a rule of whole columns, and a slot within one of them
        i_slot, j, low = first_key(n, places)
        some = some & (low < kv_stop) & (i_slot < n_slots)
        if IS_CAUSAL:
            some = some & (low <= t_last)
    else:
        some = some & (u >= kv_start) & (u < kv_stop) & (i_slot < n_slots)
        if IS_CAUSAL:
            some = some & (u <= t_last)
        some = gl.max(some.to(gl.int32), 0) > 0
    return some & (t_first <= t_last)


@gluon.jit
def is_whole(n, n_slots, places, rule, span, t_low, s_layout: gl.constexpr):
    """Whether the rows t_low..t_low + 63 keep every key of slot n; False where that would take long to say."""
    _t_base, _q_start, _q_stop, kv_start, kv_stop = span
    whole = n < 0
    if BLOCK >= ROWS:
        i_slot, j, u = keys_of(n, places, gl.SliceLayout(0, s_layout))
        i = t_low >> BLOCK_BITS
        some = keeps(i_slot, i, i, j, t_low, t_low, u, rule)
        if len(some.shape) == 0:
            i_slot, j, low = first_key(n, places)
            whole = some & (low >= kv_start) & (low + ROWS <= kv_stop) & (i_slot < n_slots)
            if IS_CAUSAL:
                whole = whole & (low + ROWS - 1 <= t_low)
    return whole


@gluon.jit
def masked(b_s, n, n_slots, places, rule, span, t_low, s_layout: gl.constexpr):
    """The scores of rows t_low..t_low + 63 and the keys of slot n, -inf where a row does not keep a key. [64, 64]"""
    _t_base, _q_start, _q_stop, kv_start, kv_stop = span
    i_slot, j, u = keys_of(n, places, gl.SliceLayout(0, s_layout))
    t = gl.expand_dims(t_low + gl.arange(0, ROWS, gl.SliceLayout(1, s_layout)), 1)
    m_n = (u >= kv_start) & (u < kv_stop) & (i_slot < n_slots)
    u = gl.expand_dims(u, 0)
    if BLOCK >= ROWS:
        i = t_low >> BLOCK_BITS
    else:
        i = t >> BLOCK_BITS
        i_slot = gl.expand_dims(i_slot, 0)
        j = gl.expand_dims(j, 0)
    m_keep = keeps(i_slot, i, i, j, t, t, u, rule) & gl.expand_dims(m_n, 0)
    if IS_CAUSAL:
        m_keep = m_keep & (u <= t)
    return gl.where(m_keep, b_s, float("-inf"))


@gluon.jit
def after(place, phase, STAGES: gl.constexpr):
    """The next place in a ring, and the parity of its barrier there."""
    place += 1
    turn = place == STAGES
    return gl.where(turn, 0, place), gl.where(turn, phase ^ 1, phase)
