"""Which keys of a slot the 64 rows of a consumer keep: `look` says it once for the slot, `masked` for every score.

What `look` says is an int32: 0 where no row keeps any key, WHOLE where all rows keep all keys; else a bit for each
block that is kept, of SIDE rows of blocks by SIDE columns, and FINE where blocks are not all that counts.
"""

from ..index_map import column, keeps
from ..tiles import BLOCK, BLOCK_BITS, IS_CAUSAL
from .names import gl, gluon
from .tiles import ROWS

SIDE = gl.constexpr(max(ROWS.value // BLOCK.value, 1))
WHOLE = gl.constexpr((1 << SIDE.value**2) - 1)
FINE = gl.constexpr(1 << 20)


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
        i_slot = n * SIDE + (o_n >> BLOCK_BITS)
        j = column(i_slot, places, False)
        u = j * BLOCK + (o_n & (BLOCK - 1))
    return i_slot, j, u


@gluon.jit
def look(n, where, s_layout: gl.constexpr):
    """What the rows t_low..t_low + 63 keep of slot n."""
    n_slots, places, rule, span, t_low = where
    _t_base, q_start, q_stop, kv_start, kv_stop = span
    t_first = gl.maximum(t_low, q_start)
    t_last = gl.minimum(t_low + ROWS, q_stop) - 1
    u = n * 0 + gl.arange(0, ROWS, gl.SliceLayout(0, s_layout))
    probe = keeps(n, t_low, t_low, n, t_low, t_low, u, rule)  # [64] where the rule is one of tokens
    if len(probe.shape) > 0:
        i_slot, j, u = keys_of(n, places, gl.SliceLayout(0, s_layout))
        some = keeps(i_slot, t_first >> BLOCK_BITS, t_last >> BLOCK_BITS, j, t_first, t_last, u, rule)
        some = some & (u >= kv_start) & (u < kv_stop) & (i_slot < n_slots)
        if IS_CAUSAL:
            some = some & (u <= t_last)
        kept = gl.max(some.to(gl.int32), 0) * (WHOLE | FINE)
    elif BLOCK >= ROWS:
        i_slot, j, low = first_key(n, places)
        i = t_low >> BLOCK_BITS
        some = keeps(i_slot, i, i, j, t_low, t_low, low, rule) & (low < kv_stop) & (i_slot < n_slots)
        whole = (low >= kv_start) & (low + ROWS <= kv_stop)
        if IS_CAUSAL:
            some = some & (low <= t_last)
            whole = whole & (low + ROWS - 1 <= t_low)
        kept = gl.where(some, gl.where(whole, WHOLE, WHOLE | FINE), 0)
    else:
        kept = blocks_kept(n, n_slots, places, rule, kv_stop, t_low)
    return gl.where(t_first <= t_last, kept, 0)


@gluon.jit
def blocks_kept(n, n_slots, places, rule, kv_stop, t_low):
    """`look` for blocks smaller than a slot and a rule of blocks: all in scalars, once for 4,096 scores."""
    kept = n * 0
    i_low = t_low >> BLOCK_BITS
    for p in gl.static_range(SIDE):
        i_slot = n * SIDE + p
        j = column(i_slot, places, False)
        is_there = (i_slot < n_slots) & (j * BLOCK < kv_stop)
        for r in gl.static_range(SIDE):
            i = i_low + r
            keep = is_there & keeps(i_slot, i, i, j, t_low, t_low, t_low, rule)
            if IS_CAUSAL:
                keep = keep & (j <= i)
            kept = gl.where(keep, kept | (1 << (r * SIDE + p)), kept)
        is_cut = j * BLOCK + BLOCK > kv_stop
        if IS_CAUSAL:
            is_cut = is_cut | (j >= i_low)
        kept = gl.where(is_there & is_cut, kept | FINE, kept)
    return gl.where((kept & WHOLE) == 0, 0, kept)


@gluon.jit
def masked(b_s, n, kept, where, s_layout: gl.constexpr):
    """The scores of rows t_low..t_low + 63 and the keys of slot n, -inf where a row does not keep a key. [64, 64]"""
    n_slots, places, rule, span, t_low = where
    _t_base, _q_start, _q_stop, kv_start, kv_stop = span
    o_m = gl.expand_dims(gl.arange(0, ROWS, gl.SliceLayout(1, s_layout)), 1)
    o_n = gl.expand_dims(gl.arange(0, ROWS, gl.SliceLayout(0, s_layout)), 0)
    u = n * 0 + gl.arange(0, ROWS, gl.SliceLayout(0, s_layout))
    probe = keeps(n, t_low, t_low, n, t_low, t_low, u, rule)
    if (BLOCK >= ROWS) or (len(probe.shape) > 0):
        b_s = masked_exactly(b_s, n, n_slots, places, rule, kv_start, kv_stop, t_low, s_layout)
    else:
        b_row = kept >> ((o_m >> BLOCK_BITS) * SIDE)  # [64, 1]
        b_s = gl.where(((b_row >> (o_n >> BLOCK_BITS)) & 1) != 0, b_s, float("-inf"))
        if kept >= FINE:
            b_s = cut(b_s, n, places, kv_stop, t_low, s_layout)
    return b_s


@gluon.jit
def cut(b_s, n, places, kv_stop, t_low, s_layout: gl.constexpr):
    """The scores, -inf behind the last key and behind the rows' own positions."""
    _i_slot, _j, u = keys_of(n, places, gl.SliceLayout(0, s_layout))
    last = t_low + gl.arange(0, ROWS, gl.SliceLayout(1, s_layout))
    if IS_CAUSAL:
        last = gl.minimum(last, kv_stop - 1)
    else:
        last = last * 0 + (kv_stop - 1)
    return gl.where(gl.expand_dims(u, 0) <= gl.expand_dims(last, 1), b_s, float("-inf"))


@gluon.jit
def masked_exactly(b_s, n, n_slots, places, rule, kv_start, kv_stop, t_low, s_layout: gl.constexpr):
    """The same, with the rule worked out for each score."""
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
