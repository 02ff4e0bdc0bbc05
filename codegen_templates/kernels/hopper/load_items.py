"""Loads of the dK/dV producer: the keys and values of an item, and slots of the rows that read them."""

from ..rounds import row_in
from ..tiles import BLOCK, BLOCK_BITS, HEAD_DIM, IS_TABLE, late_zero
from .box import ONE_WARP, noted, write
from .names import barrier, expect, fence_async_shared, gl, gluon, load_box, wait
from .notes import (
    BATCH,
    EDGE,
    EVERY,
    FAR,
    FIRST_COLUMN,
    FIRST_KEY,
    HEAD,
    ITEM,
    KV_HEAD,
    KV_ROW,
    KV_STOP,
    PLACES,
    Q_ROW,
    Q_START,
    Q_STOP,
    REQUEST,
    SLOT,
    SLOTS,
    SUMS,
    TWO,
    WHICH,
    all_noted,
    ends_noted,
    item_noted,
)
from .produce import CHUNK, CHUNKS, clear_rows, load_run
from .row_masks import LANES, PIECE, rows_at
from .tiles import NOTHING, ROWS

KEYS = gl.constexpr(128)  # of an item: 64 for each consumer
BLOCKS = gl.constexpr(128 // PIECE.value)  # of them, in pieces of a block where it is larger
BOX = gl.constexpr(10 + BLOCKS.value)  # numbers that consumers are told of an item


@gluon.jit
def tell_item(box, items, notes):
    """Leave what consumers need to know of an item: how many slots it has, where its keys are in dk and dv and among
    positions, and for each of its blocks the slot in `parts`: below 0 where the sums go to dk and dv."""
    o_box = noted(notes, WHICH) * BOX
    write(box, o_box, 1)
    write(box, o_box + 1, noted(notes, EDGE))
    write(box, o_box + 2, noted(notes, FAR))
    write(box, o_box + 3, noted(notes, BATCH))
    write(box, o_box + 4, noted(notes, KV_HEAD))
    write(box, o_box + 5, noted(notes, KV_ROW))
    write(box, o_box + 6, noted(notes, KV_STOP))
    write(box, o_box + 7, noted(notes, FIRST_COLUMN))
    write(box, o_box + 8, noted(notes, EVERY))
    write(box, o_box + 9, noted(notes, FIRST_KEY))
    for c in range(noted(notes, TWO) * (ROWS // PIECE)):
        barrier()
        p_slot = items + (noted(notes, ITEM) + 9 + ((c * PIECE) >> BLOCK_BITS))
        write(box, noted(notes, WHICH) * BOX + 10 + c, gl.load(p_slot))


@gluon.jit
def load_keys(keys_of, kv_bars, box, items, notes):
    """Once the keys and values of the item before are free: load this item's, and tell the consumers of it."""
    k, v, k_run, v_run, bufs, runs = keys_of
    kv_full, kv_empty = kv_bars
    wait(kv_empty, noted(notes, WHICH) ^ 1)
    # what was told of the item before is still read
    tell_item(box, items, notes)
    barrier()
    expect(kv_full, 2 * KEYS * HEAD_DIM * 2)
    RUNS: gl.constexpr = ROWS // PIECE
    for w in range(noted(notes, TWO)):
        j_first, every, o_first = item_noted(notes)
        first = o_first + w * ROWS
        row = (j_first + (first >> BLOCK_BITS) * every) * BLOCK + (first & (BLOCK - 1)) + noted(notes, KV_ROW)
        at, i_kv = noted(notes, REQUEST), noted(notes, KV_HEAD)
        if BLOCK >= ROWS or IS_TABLE:  # noqa: SIM114 (what the kernel is compiled for, then what the item is)
            load_run((k, v), bufs, kv_full, at, i_kv, row, w * CHUNKS, 1)
        elif every == 1:
            load_run((k, v), bufs, kv_full, at, i_kv, row, w * CHUNKS, 1)
        else:
            for p in range(RUNS):
                own = row + p * every * BLOCK
                to = w * CHUNKS * RUNS + p
                load_run((k_run, v_run), runs, kv_full, at, i_kv, own, to, RUNS)


@gluon.jit
def load_together(rows_of, bar, place, t, notes):
    """Copy the 64 rows from position t on, their LSE and their delta to this place of the ring."""
    q, dout, _q_run, _dout_run, log_sums, deltas, _, _, bufs, _runs, lines, _lanes = rows_of
    qbuf, gbuf = bufs
    lbuf, dbuf = lines
    at, head, row = noted(notes, REQUEST), noted(notes, HEAD), noted(notes, Q_ROW) + t
    expect(bar, 2 * ROWS * HEAD_DIM * 2 + 2 * ROWS * 4)
    for c in gl.static_range(CHUNKS):
        load_box(q, [at, head, row, c * CHUNK], bar, qbuf.index(place * CHUNKS + c))
    load_box(log_sums, [noted(notes, SUMS) + t], bar, lbuf.index(place))
    for c in gl.static_range(CHUNKS):
        load_box(dout, [at, head, row, c * CHUNK], bar, gbuf.index(place * CHUNKS + c))
    load_box(deltas, [noted(notes, SUMS) + t], bar, dbuf.index(place))


@gluon.jit
def load_apart(rows_of, bar, place, n, notes, like, IS_STRIDE: gl.constexpr):
    """The same of slot n, whose blocks are smaller and are not neighbours. Those that are not there are not read: zeros
    take their place."""
    _q, _dout, q_run, dout_run, _, _, p_log_sum, p_delta, _bufs, runs, _lines, lanes = rows_of
    qruns, gruns = runs
    llanes, dlanes = lanes
    RUNS: gl.constexpr = ROWS // PIECE
    for half in range(noted(notes, TWO)):  # a row for each lane
        barrier()
        o_m = half * LANES + gl.arange(0, LANES, ONE_WARP) + late_zero(n)
        slots, t = rows_at(n, o_m, all_noted(notes, PLACES, like[0]), IS_STRIDE)
        m_row = (slots < noted(notes, SLOTS)) & (t >= noted(notes, Q_START)) & (t < noted(notes, Q_STOP))
        o_sum = noted(notes, SUMS) + t
        to = place * (ROWS // LANES) + half
        llanes.index(to).store(gl.load(p_log_sum + o_sum, mask=m_row, other=0.0))
        dlanes.index(to).store(gl.load(p_delta + o_sum, mask=m_row, other=0.0))
    fence_async_shared()
    barrier()
    expect(bar, 2 * ROWS * HEAD_DIM * 2)
    for p in range(RUNS):
        slot = n * RUNS + p
        row = noted(notes, Q_ROW) + row_in(slot, all_noted(notes, PLACES, like[0]), IS_STRIDE, False) * BLOCK
        row = gl.where(slot < noted(notes, SLOTS), row, NOTHING)
        at, head = noted(notes, REQUEST), noted(notes, HEAD)
        for c in gl.static_range(CHUNKS):
            to = (place * CHUNKS + c) * RUNS + p
            load_box(q_run, [at, head, row, c * CHUNK], bar, qruns.index(to))
            load_box(dout_run, [at, head, row, c * CHUNK], bar, gruns.index(to))


@gluon.jit
def run_at(n, p, notes, like, IS_STRIDE: gl.constexpr):
    """The position at which run p of slot n begins."""
    if IS_TABLE:
        return noted(notes, SLOT) + p * PIECE
    else:
        x = n * ROWS + p * PIECE
        return row_in(x >> BLOCK_BITS, all_noted(notes, PLACES, like[0]), IS_STRIDE, False) * BLOCK + (x & (BLOCK - 1))


@gluon.jit
def load_rows(rows_of, bar, place, n, notes, like, IS_STRIDE: gl.constexpr):
    """Copy the rows of slot n, their LSE and their delta to this place of the ring."""
    if IS_TABLE:
        load_together(rows_of, bar, place, noted(notes, SLOT), notes)
    elif BLOCK >= ROWS:
        load_together(rows_of, bar, place, run_at(n, 0, notes, like, IS_STRIDE), notes)
    else:
        x = n * ROWS
        t = run_at(n, 0, notes, like, IS_STRIDE)
        o = (gl.arange(0, LANES, ONE_WARP) + late_zero(n)) & (ROWS // PIECE - 1)  # a lane for each block, and again
        own = row_in((x >> BLOCK_BITS) + o, all_noted(notes, PLACES, like[0]), IS_STRIDE, False) * BLOCK
        is_apart = gl.max((own != t + o * BLOCK).to(gl.int32), 0) != 0
        if is_apart | (x + ROWS > noted(notes, SLOTS) * BLOCK):
            load_apart(rows_of, bar, place, n, notes, like, IS_STRIDE)
        else:
            load_together(rows_of, bar, place, t, notes)


@gluon.jit
def is_cut(n, notes, like, IS_STRIDE: gl.constexpr):
    """Whether a slot has rows of other sequences: of its blocks, but before or behind the queries."""
    q_start, q_stop, _kv_stop = ends_noted(notes)
    if IS_TABLE:
        return (noted(notes, SLOT) < q_start) | (noted(notes, SLOT) + ROWS > q_stop)
    else:
        slot, t = rows_at(n, gl.arange(0, ROWS, ONE_WARP), all_noted(notes, PLACES, like[0]), IS_STRIDE)
        foreign = (slot < noted(notes, SLOTS)) & ((t < q_start) | (t >= q_stop))
        return gl.max(foreign.to(gl.int32), 0) > 0


@gluon.jit
def clear_foreign(qrows, grows, place, n, notes, like, IS_STRIDE: gl.constexpr):
    """Write zeros over them: a weight of 0 does not undo what is no number."""
    for p in range(noted(notes, TWO) * (ROWS // PIECE) // 2):
        q_start, q_stop, _kv_stop = ends_noted(notes)
        t = run_at(n, p, notes, like, IS_STRIDE)
        low = gl.minimum(gl.maximum(q_start - t, 0), PIECE)
        high = gl.minimum(gl.maximum(q_stop - t, low), PIECE)
        clear_rows(qrows, place, p * PIECE, p * PIECE + low, qrows.dtype)
        clear_rows(qrows, place, p * PIECE + high, (p + 1) * PIECE, qrows.dtype)
        clear_rows(grows, place, p * PIECE, p * PIECE + low, grows.dtype)
        clear_rows(grows, place, p * PIECE + high, (p + 1) * PIECE, grows.dtype)
