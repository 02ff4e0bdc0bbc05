"""Which of a slot's rows keep the keys of an item of dK and dV: the producer works it out, the consumers mask.

A consumer has 64 of an item's 128 keys. For it a number tells what an edge slot's rows keep of them, as that of
`masks.py` does: 0, WHOLE, or a bit for each pair of blocks, and FINE where more than blocks counts. Beside it are
left the rows' and the keys' positions, and where the class is in the pattern, for rules of tokens.
"""

from ..rounds import keeps_in, row_in
from ..row_map import keeps_near, rule_of
from ..tiles import BLOCK, BLOCK_BITS, IS_CAUSAL, IS_TABLE, late_zero
from .box import ONE_WARP, noted, told, write
from .masks import FINE, PAIRS, PIECE, SIDE
from .names import barrier, gl, gluon
from .notes import CLASS, PLACES, SLOTS, TWO, all_noted, ends_noted, item_noted, rule_noted
from .tiles import ROWS

LANES = gl.constexpr(32)  # of the producer's warp
SIDE_BITS = gl.constexpr(SIDE.value.bit_length() - 1)
ABSENT = gl.constexpr(-(1 << 30))  # the position of a row that is not there: before all keys
WORDS = gl.constexpr(4)  # that are left of each slot: what either consumer keeps, the class's place in the pattern


@gluon.jit
def rows_at(n, o_m, places, IS_STRIDE: gl.constexpr):
    """The places in the row map and the positions of rows o_m of slot n."""
    x = n * ROWS + o_m
    slot = x >> BLOCK_BITS
    return slot, row_in(slot, places, IS_STRIDE, False) * BLOCK + (x & (BLOCK - 1))


@gluon.jit
def keys_of_item(o_n, item):
    """The positions of keys o_n, whole numbers below 128."""
    j_first, every, o_first = item
    x = o_first + o_n
    return (j_first + (x >> BLOCK_BITS) * every) * BLOCK + (x & (BLOCK - 1))


@gluon.jit
def tell_rows(words, lanes, place, n, notes, like, IS_STRIDE: gl.constexpr):
    """Leave what consumers need to know of an edge slot."""
    for half in range(noted(notes, TWO)):  # a row for each lane
        barrier()
        q_start, q_stop, _kv_stop = ends_noted(notes)
        o_m = half * LANES + gl.arange(0, LANES, ONE_WARP) + late_zero(n)
        slot, t = rows_at(n, o_m, all_noted(notes, PLACES, like[0]), IS_STRIDE)
        is_there = (slot < noted(notes, SLOTS)) & (t >= q_start) & (t < q_stop)
        lanes.index(place * (ROWS // LANES) + half).store(gl.where(is_there, t, ABSENT))

    # a lane for each consumer, piece of its keys, and piece of the rows
    q_start, q_stop, kv_stop = ends_noted(notes)
    o = gl.arange(0, 2 * PAIRS, ONE_WARP) + late_zero(n)  # what follows from it holds no registers from slot to slot
    slot, t = rows_at(n, ((o >> SIDE_BITS) & (SIDE - 1)) * PIECE, all_noted(notes, PLACES, like[0]), IS_STRIDE)
    u = keys_of_item((o >> 2 * SIDE_BITS) * ROWS + (o & (SIDE - 1)) * PIECE, item_noted(notes))
    keep = (slot < noted(notes, SLOTS)) & (t + PIECE > q_start) & (t < q_stop) & (u < kv_stop)
    is_cut = (t < q_start) | (t + PIECE > q_stop)
    if IS_CAUSAL:
        keep = keep & (u < t + PIECE)
        is_cut = is_cut | (u + PIECE > t + 1)
    is_exact = n * 0
    rule = rule_noted(notes, like, IS_STRIDE)
    probe = keeps_in(n, n, n, o, o, rule, IS_STRIDE)
    if len(probe.shape) > 0:  # a rule of tokens
        is_exact += 1
        is_cut = is_cut | keep
    else:
        keep = keep & keeps_in(slot, t >> BLOCK_BITS, u >> BLOCK_BITS, t, u, rule, IS_STRIDE)
    bit = gl.where(keep, (1 << (o & (PAIRS - 1))) + gl.where(is_cut, FINE, 0), 0)
    for w in gl.static_range(2):
        write(words, place * WORDS + w, gl.sum(gl.where(o >> 2 * SIDE_BITS == w, bit, 0), 0))
    write(words, place * WORDS + 2, noted(notes, CLASS))
    write(words, place * WORDS + 3, is_exact)


@gluon.jit
def keys_told(W: gl.constexpr, box, o_box, layout: gl.constexpr):
    """The positions of a consumer's keys, of the item that it was told of in `box` from o_box on. [64]"""
    item = (told(box, o_box + 7), told(box, o_box + 8), told(box, o_box + 9))
    return keys_of_item(W * ROWS + gl.arange(0, ROWS, layout), item)


@gluon.jit
def masked_rows(W: gl.constexpr, b_p, place, kept, item, s_layout: gl.constexpr):
    """The weights of a consumer's keys for the rows of a slot, 0 where a row does not keep a key. [keys, rows]"""
    words, times, box, o_box, pattern, rows = item
    t = gl.expand_dims(times.index(place).load(gl.SliceLayout(0, s_layout)), 0)
    u = gl.expand_dims(keys_told(W, box, o_box, gl.SliceLayout(1, s_layout)), 1)
    probe = keeps_near(kept, kept, kept, t, u, rule_at(words, place, pattern, rows))
    if len(probe.shape) > 0:  # of near rows; strides have no rule of tokens
        if told(words, place * WORDS + 3) != 0:
            keep = keeps_near(kept, t >> BLOCK_BITS, u >> BLOCK_BITS, t, u, rule_at(words, place, pattern, rows))
            if IS_TABLE:  # it says what else is kept, by blocks
                keep = keep | kept_blocks(kept, s_layout)
            keep = keep & (t != ABSENT)
            if IS_CAUSAL:
                keep = keep & (u <= t)
            b_p = gl.where(keep, b_p, 0.0)
        else:
            b_p = masked_by_blocks(b_p, kept, t, u, s_layout)
    else:
        b_p = masked_by_blocks(b_p, kept, t, u, s_layout)
    return b_p


@gluon.jit
def rule_at(words, place, pattern, rows):
    """What near rows' rule needs of the class of a slot."""
    i_class = told(words, place * WORDS + 2)
    return rule_of(pattern + i_class, rows, i_class)


@gluon.jit
def kept_blocks(kept, s_layout: gl.constexpr):
    """Whether the word has the bit of each pair's blocks. [keys, rows], or one for all"""
    if SIDE > 1:
        o_m = gl.expand_dims(gl.arange(0, ROWS, gl.SliceLayout(0, s_layout)), 0)
        o_n = gl.expand_dims(gl.arange(0, ROWS, gl.SliceLayout(1, s_layout)), 1)
        kept = (kept >> ((o_m >> BLOCK_BITS) * SIDE)) >> (o_n >> BLOCK_BITS)
    return (kept & 1) != 0


@gluon.jit
def masked_by_blocks(b_p, kept, t, u, s_layout: gl.constexpr):
    """The same by the blocks that are kept, by causality, and by which rows there are."""
    if SIDE > 1:
        b_p = gl.where(kept_blocks(kept, s_layout), b_p, 0.0)
    if kept >= FINE:
        if IS_CAUSAL:
            b_p = gl.where(u <= t, b_p, 0.0)
        else:
            b_p = gl.where((t + u * 0) != ABSENT, b_p, 0.0)
    return b_p
