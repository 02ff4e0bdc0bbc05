"""Which keys of a slot the rows of a tile keep: the producer works it out, the consumers mask.

A consumer has 64 of a tile's rows. For it a number tells what they keep of an edge slot: 0 where no row keeps any key,
WHOLE where all rows keep all keys; else a bit for each block that is kept, of SIDE rows of blocks by SIDE columns, and
FINE where blocks are not all that counts. Beside it are left the keys' positions.
"""

from ..index_map import keeps, rule_of
from ..tiles import BLOCK, BLOCK_BITS, IS_CAUSAL, IS_TABLE
from .box import ONE_WARP, write
from .columns import PIECE, SIDE, column_at, entry_at
from .names import gl, gluon
from .tiles import ROWS

PAIRS = gl.constexpr(SIDE.value**2)
WHOLE = gl.constexpr((1 << PAIRS.value) - 1)
FINE = gl.constexpr(1 << 20)
ABSENT = gl.constexpr(1 << 30)  # the position of a key that is not there: behind all rows


@gluon.jit
def keys_at(n, o_n, places):
    """The places in the index map and the positions of keys o_n of slot n."""
    x = n * ROWS + o_n
    i_slot = x >> BLOCK_BITS
    return i_slot, column_at(i_slot, places) * BLOCK + (x & (BLOCK - 1))


@gluon.jit
def tell_keys(words, keys, place, n, n_slots, places, rule, span, CONSUMERS: gl.constexpr):
    """Leave what consumers need to know of an edge slot; returns what any of them keeps."""
    t_base, q_start, q_stop, kv_start, kv_stop = span
    i_slot, u = keys_at(n, gl.arange(0, ROWS, ONE_WARP), places)
    is_there = (i_slot < n_slots) & (u >= kv_start) & (u < kv_stop)
    keys.index(place).store(gl.where(is_there, u, ABSENT))

    # a lane for each consumer, piece of its rows, and piece of the keys
    LANES: gl.constexpr = PAIRS * (2 if CONSUMERS <= 2 else 4)
    o = gl.arange(0, LANES, ONE_WARP)
    t_low = t_base + o // PAIRS * ROWS
    t = t_low + o % PAIRS // SIDE * PIECE
    i_piece, u_piece = keys_at(n, o % SIDE * PIECE, places)
    m_row = gl.maximum(t, q_start) < gl.minimum(t + PIECE, q_stop)  # else nobody reads what these rows would keep
    keep = m_row & (i_piece < n_slots) & (u_piece < kv_stop)
    is_cut = (u_piece < kv_start) | (u_piece + PIECE > kv_stop)
    if IS_CAUSAL:
        keep = keep & (u_piece < t + PIECE)
        is_cut = is_cut | (u_piece + PIECE > t + 1)
    probe = keeps(n, n, n, n, n, n, u, rule)
    if IS_TABLE:
        row_bits = entry_at(i_piece, places) >> (o // PAIRS * SIDE + o % PAIRS // SIDE)
        keep = keep & ((row_bits & 1) != 0) & (u_piece >= kv_start)
    elif len(probe.shape) == 0:
        i = t >> BLOCK_BITS
        keep = keep & keeps(i_piece, i, i, u_piece >> BLOCK_BITS, t, t, u_piece, rule)
    bit = gl.where(keep, (1 << (o % PAIRS)) + gl.where(is_cut, FINE, 0), 0)

    every = n * 0
    for w in gl.static_range(CONSUMERS):
        kept = gl.sum(gl.where(o // PAIRS == w, bit, 0), 0)
        if len(probe.shape) > 0:  # a rule of tokens
            t_first = gl.maximum(t_base + w * ROWS, q_start)
            t_last = gl.minimum(t_base + (w + 1) * ROWS, q_stop) - 1
            is_asked = is_there & (t_first <= t_last)
            i_first, i_last, j = t_first >> BLOCK_BITS, t_last >> BLOCK_BITS, u >> BLOCK_BITS
            some = is_asked & keeps(i_slot, i_first, i_last, j, t_first, t_last, u, rule)
            # each term of a rule is an interval of rows: with its ends exchanged it asks whether they are all in it
            whole = is_asked & keeps(i_slot, i_last, i_first, j, t_last, t_first, u, rule)
            if IS_CAUSAL:
                some = some & (u <= t_last)
                whole = whole & (u <= t_first)
            is_some = gl.max(some.to(gl.int32), 0)
            if IS_TABLE:  # it says what else is kept, by blocks
                kept = gl.where(kept == WHOLE, WHOLE, kept + is_some * FINE)
            else:
                kept = is_some * (WHOLE | FINE)
            kept = gl.where(gl.min(whole.to(gl.int32), 0) > 0, WHOLE, kept)
        write(words, place * CONSUMERS + w, kept)
        every = every | kept
    return every


@gluon.jit
def masked(b_s, n, kept, place, edge, s_layout: gl.constexpr):
    """The scores of a consumer's rows and the keys of slot n, -inf where a row does not keep a key. [64, 64]"""
    keys, t_low, i_class, pattern, columns = edge
    rule = rule_of(pattern + i_class, columns, n)
    t = gl.expand_dims(t_low + gl.arange(0, ROWS, gl.SliceLayout(1, s_layout)), 1)
    o_n = gl.arange(0, ROWS, gl.SliceLayout(0, s_layout))
    probe = keeps(n, n, n, n, n, n, o_n, rule)
    if len(probe.shape) > 0:
        i_slot = gl.expand_dims((n * ROWS + o_n) >> BLOCK_BITS, 0)
        u = gl.expand_dims(keys.index(place).load(gl.SliceLayout(0, s_layout)), 0)
        i = t_low >> BLOCK_BITS
        if BLOCK < ROWS:
            i = t >> BLOCK_BITS
        m_keep = keeps(i_slot, i, i, u >> BLOCK_BITS, t, t, u, rule)
        if IS_TABLE:
            m_keep = m_keep | kept_blocks(kept, s_layout)
        m_keep = m_keep & (u != ABSENT)
        if IS_CAUSAL:
            m_keep = m_keep & (u <= t)
        b_s = gl.where(m_keep, b_s, float("-inf"))
    else:
        b_s = masked_by_blocks(b_s, kept, place, keys, t, s_layout)
    return b_s


@gluon.jit
def kept_blocks(kept, s_layout: gl.constexpr):
    """Whether the word has the bit of each pair's block. [64, 64], or one for all"""
    if SIDE > 1:
        o_m = gl.expand_dims(gl.arange(0, ROWS, gl.SliceLayout(1, s_layout)), 1)
        o_n = gl.expand_dims(gl.arange(0, ROWS, gl.SliceLayout(0, s_layout)), 0)
        kept = kept >> ((o_m >> BLOCK_BITS) * SIDE)  # [64, 1]
        kept = kept >> (o_n >> BLOCK_BITS)
    return (kept & 1) != 0


@gluon.jit
def masked_by_blocks(b_s, kept, place, keys, t, s_layout: gl.constexpr):
    """The same by the blocks that are kept, by causality, and by which keys there are. t: the rows' positions."""
    if SIDE > 1:
        b_s = gl.where(kept_blocks(kept, s_layout), b_s, float("-inf"))
    if (kept >= FINE) | (SIDE == 1):
        last = t
        if not IS_CAUSAL:
            last = t * 0 + (ABSENT - 1)
        last = gl.where(kept == 0, -1, last)
        u = gl.expand_dims(keys.index(place).load(gl.SliceLayout(0, s_layout)), 0)
        b_s = gl.where(u <= last, b_s, float("-inf"))
    return b_s
