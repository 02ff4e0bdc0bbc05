"""The producer of the fused backward: one warp that takes items, and loads their keys and the rows that read them.

What is to be loaded the host has listed (`launch/fused_items.py`): of an item its keys and its query heads, of each
head a list of slots of 64 rows, the last first, with what either consumer keeps of each, and how many items add to the
slot's tile of dQ before this one. The warp has few registers: what it knows of an item and a head stays in its notes.
"""

from ..tiles import BLOCK, BLOCK_BITS, HEAD_DIM, IS_CAUSAL
from .box import ONE_WARP, noted, write
from .load_items import BLOCKS, BOX, KEYS
from .masks import FINE
from .names import arrive, barrier, expect, gl, gluon, load_box, wait
from .produce import CHUNK, CHUNKS
from .row_masks import LANES, PIECE
from .tiles import NOTHING, ROWS, after

FIELDS = gl.constexpr(10)  # of an item: KV head, members, the first of them, first column, the distance of columns, …,
MEMBER = gl.constexpr(5)  # of a member: head, its class's place in the pattern, where its lists and ranks begin, slots
NOWHERE = gl.constexpr(-(1 << 30))  # before all keys
EXACT = gl.constexpr(1 << 21)  # of a word: tokens keep a part of a block
WORDS = gl.constexpr(8)  # that are left of each slot: what either consumer keeps, and
CLASS = gl.constexpr(2)  # the class's place in the pattern
FIRST_ROW = gl.constexpr(3)  # the position of its first row
TILE = gl.constexpr(4)  # the number of its tile of dQ
RANK = gl.constexpr(5)  # how many items add to that before
LEFT = gl.constexpr(6)  # slots of the item behind it

# notes
BATCH = gl.constexpr(0)
ITEM = gl.constexpr(1)  # where it stands in the table
MEMBERS = gl.constexpr(2)  # that are not loaded yet, and where the next one stands
NEXT = gl.constexpr(3)
SLOTS = gl.constexpr(4)  # of the item, and those that are not loaded yet
TO_LOAD = gl.constexpr(5)
TURN = gl.constexpr(6)  # items so far
HEAD = gl.constexpr(7)
OWN_CLASS = gl.constexpr(8)
SUMS = gl.constexpr(9)  # the place of position 0 in LSE and delta
FIRST_TILE = gl.constexpr(10)  # the number of the head's tile at position 0
LISTED = gl.constexpr(11)  # of the head: its place in the lists and in the ranks, and how many slots there are
RANKS = gl.constexpr(12)
COUNT = gl.constexpr(13)
NOTES = gl.constexpr(14)


@gluon.jit
def load_keys(keys_of, kv_bars, box, notes, items, kv_start, kv_stop):
    """Once the keys and values of the item before are free: load this item's, and tell the consumers of it."""
    k_run, v_run, runs = keys_of
    kruns, vruns = runs
    kv_full, k_empty = kv_bars
    RUNS: gl.constexpr = ROWS // PIECE
    wait(k_empty, (noted(notes, TURN) & 1) ^ 1)
    o_box = (noted(notes, TURN) & 1) * BOX
    p_item = items + noted(notes, ITEM)
    write(box, o_box, 1)
    write(box, o_box + 1, noted(notes, SLOTS))
    write(box, o_box + 3, noted(notes, BATCH))
    write(box, o_box + 4, gl.load(p_item))
    write(box, o_box + 5, -kv_start)
    write(box, o_box + 6, kv_stop)
    write(box, o_box + 7, gl.load(p_item + 3))
    write(box, o_box + 8, gl.load(p_item + 4))
    write(box, o_box + 9, 0)
    for c in gl.static_range(BLOCKS):
        write(box, o_box + 10 + c, gl.load(p_item + FIELDS + ((c * PIECE) >> BLOCK_BITS)))
    barrier()
    expect(kv_full, 2 * KEYS * HEAD_DIM * 2)
    for p in range(BLOCKS):
        p_item = items + noted(notes, ITEM)
        x = p * PIECE
        row = (gl.load(p_item + 3) + (x >> BLOCK_BITS) * gl.load(p_item + 4)) * BLOCK + (x & (BLOCK - 1)) - kv_start
        row = gl.where((gl.load(p_item + 6) >> p) & 1 != 0, row, NOTHING)  # keys that nobody keeps are zeros
        at, kv_head = noted(notes, BATCH), gl.load(p_item)
        for c in gl.static_range(CHUNKS):
            to = (p // RUNS * CHUNKS + c) * RUNS + p % RUNS
            load_box(k_run, [at, kv_head, row, c * CHUNK], kv_full, kruns.index(to))
            load_box(v_run, [at, kv_head, row, c * CHUNK], kv_full, vruns.index(to))


@gluon.jit
def tell_lasts(lasts, place, t, ends):
    """Leave the last key that each of 64 rows from position t on may keep: none where there is no such row."""
    q_start, q_stop, _kv_start, kv_stop = ends
    for half in gl.static_range(ROWS // LANES):
        o = t + half * LANES + gl.arange(0, LANES, ONE_WARP)
        last = gl.minimum(o, kv_stop - 1) if IS_CAUSAL else o * 0 + (kv_stop - 1)
        lasts.index(place * (ROWS // LANES) + half).store(gl.where((o >= q_start) & (o < q_stop), last, NOWHERE))


@gluon.jit
def load_rows(rows_of, into, bar, place, t, notes, q_start):
    """Copy the 64 rows from position t on, their LSE and their delta to this place of the ring."""
    q, dout, log_sums, deltas = rows_of
    bufs, lines = into
    qbuf, gbuf = bufs
    lbuf, dbuf = lines
    at, head, row, sums = noted(notes, BATCH), noted(notes, HEAD), t - q_start, noted(notes, SUMS) + t
    expect(bar, 2 * ROWS * HEAD_DIM * 2 + 2 * ROWS * 4)
    for c in gl.static_range(CHUNKS):
        load_box(q, [at, head, row, c * CHUNK], bar, qbuf.index(place * CHUNKS + c))
    load_box(log_sums, [sums], bar, lbuf.index(place))
    for c in gl.static_range(CHUNKS):
        load_box(dout, [at, head, row, c * CHUNK], bar, gbuf.index(place * CHUNKS + c))
    load_box(deltas, [sums], bar, dbuf.index(place))


@gluon.jit
def note_item(number, total, count, notes, items, s_items):
    """Note where an item stands, and its slots."""
    barrier()  # what was noted of the item before has been read
    of_each = total // count
    i_batch = number // of_each
    o_item = (number - i_batch * of_each) * s_items
    write(notes, BATCH, i_batch)
    write(notes, ITEM, o_item)
    write(notes, MEMBERS, gl.load(items + o_item + 1))
    write(notes, NEXT, gl.load(items + o_item + 2) * MEMBER)
    write(notes, SLOTS, gl.load(items + o_item + 7))
    write(notes, TO_LOAD, gl.load(items + o_item + 7))
    barrier()


@gluon.jit
def note_member(notes, members, q_start, s_sums, sizes):
    """Note the next query head of an item."""
    s_lb, s_lh = s_sums
    heads, dq_slots = sizes
    p = members + noted(notes, NEXT)
    head, i_batch = gl.load(p), noted(notes, BATCH)
    barrier()  # what was noted of the head before has been read
    write(notes, MEMBERS, noted(notes, MEMBERS) - 1)
    write(notes, NEXT, noted(notes, NEXT) + MEMBER)
    write(notes, HEAD, head)
    write(notes, OWN_CLASS, gl.load(p + 1))
    write(notes, LISTED, gl.load(p + 2))
    write(notes, RANKS, gl.load(p + 3))
    write(notes, COUNT, gl.load(p + 4))
    write(notes, SUMS, i_batch * s_lb + head * s_lh - q_start)
    write(notes, FIRST_TILE, (i_batch * heads + head) * dq_slots - (q_start >> 6))
    barrier()


@gluon.jit
def tell_slot(words, lasts, place, notes, tables, n, ends):
    """Leave what consumers need to know of slot n of a head's list, and which of its rows keep what; returns the
    position of its first row."""
    _items, _members, lists, ranks = tables
    p_list = lists + (noted(notes, LISTED) + n) * 3
    slot, kept, other = gl.load(p_list), gl.load(p_list + 1), gl.load(p_list + 2)
    write(words, place * WORDS, kept)
    write(words, place * WORDS + 1, other)
    if (kept | other) >= FINE:
        tell_lasts(lasts, place, slot * ROWS, ends)
    write(words, place * WORDS + CLASS, noted(notes, OWN_CLASS))
    write(words, place * WORDS + FIRST_ROW, slot * ROWS)
    write(words, place * WORDS + TILE, noted(notes, FIRST_TILE) + slot)
    write(words, place * WORDS + RANK, gl.load(ranks + (noted(notes, RANKS) + n)))
    left = noted(notes, TO_LOAD) - 1
    write(words, place * WORDS + LEFT, left)
    barrier()
    write(notes, TO_LOAD, left)
    return slot * ROWS


@gluon.jit
def produce_fused(keys_of, rows_of, into, words, lasts, kv_bars, box, notes, full, empty, taken, total, count, tables,
                  ends, s_sums, sizes, s_items, STAGES: gl.constexpr):  # fmt: skip
    """`keys_of`: descriptors of keys and values and the boxes that they fill; `rows_of`: descriptors of what is copied
    to the slots of `into`. `sizes`: query heads, and tiles of dQ of each."""
    items, members, _lists, _ranks = tables
    q_start, _q_stop, kv_start, kv_stop = ends
    kv_full, k_empty = kv_bars
    place, phase = 0, 0
    write(notes, TURN, 0)
    number = gl.atomic_add(taken, 1)
    while number < total:
        note_item(number, total, count, notes, items, s_items)
        if noted(notes, SLOTS) == 0:
            load_keys(keys_of, kv_bars, box, notes, items, kv_start, kv_stop)
        while noted(notes, MEMBERS) > 0:
            note_member(notes, members, q_start, s_sums, sizes)
            for n in range(noted(notes, COUNT)):
                wait(empty.index(place), phase ^ 1)
                t = tell_slot(words, lasts, place, notes, tables, n, ends)
                load_rows(rows_of, into, full.index(place), place, t, notes, q_start)
                place, phase = after(place, phase, STAGES)
                # keys are loaded behind the slots that do not wait for those of the item before
                if noted(notes, SLOTS) - noted(notes, TO_LOAD) == gl.minimum(noted(notes, SLOTS), 2):
                    load_keys(keys_of, kv_bars, box, notes, items, kv_start, kv_stop)
        barrier()
        write(notes, TURN, noted(notes, TURN) + 1)
        number = gl.atomic_add(taken, 1)
    barrier()
    wait(k_empty, (noted(notes, TURN) & 1) ^ 1)
    write(box, (noted(notes, TURN) & 1) * BOX, 0)
    barrier()
    arrive(kv_full, count=1)
