"""Loads of the dK/dV producer: the keys and values of an item, and slots of the rows that read them."""

from ..rounds import row_in
from ..tiles import BLOCK, BLOCK_BITS, HEAD_DIM
from .box import ONE_WARP, write
from .names import barrier, expect, fence_async_shared, gl, gluon, load_box, wait
from .produce import CHUNK, CHUNKS, clear_rows, load_run
from .row_masks import PIECE, keys_of_item, rows_at
from .tiles import NOTHING, ROWS

KEYS = gl.constexpr(128)  # of an item: 64 for each consumer
BOX = gl.constexpr(5)  # numbers that consumers are told of an item


@gluon.jit
def tell_item(boxes, which, n_edge, n_far, item, kv, p_slots, s_out):
    """Leave what consumers need to know of an item: how many slots it has, its keys' positions, and where in dk and dv
    (in units of ALIGN numbers), or in `parts` (in rows), the sums of each key go; below 0 where they do not."""
    box, keys, to_out, to_parts = boxes
    i_batch, i_kv, kv_first, kv_start, kv_stop = kv
    s_db, s_dh, s_dn, slots = s_out
    write(box, which * BOX, 1)
    write(box, which * BOX + 1, n_edge)
    write(box, which * BOX + 2, n_far)
    for w in gl.static_range(2):
        o_n = w * ROWS + gl.arange(0, ROWS, ONE_WARP)
        u = keys_of_item(o_n, item)
        slot = gl.load(p_slots + (o_n >> BLOCK_BITS))
        keys.index(which * 2 + w).store(u)
        row = (u + (kv_first - kv_start)).to(gl.int64)
        o_out = i_batch.to(gl.int64) * s_db + i_kv.to(gl.int64) * s_dh + row * s_dn
        to_out.index(which * 2 + w).store(gl.where((u < kv_stop) & (slot < 0), o_out, -1))
        slot = gl.where(u < kv_stop, slot, -1)
        o_part = (i_batch.to(gl.int64) * slots + slot) * (2 * BLOCK) + (u & (BLOCK - 1))
        to_parts.index(which * 2 + w).store(gl.where(slot >= 0, o_part, -1))
        write(box, which * BOX + 3 + w, gl.max((slot >= 0).to(gl.int32), 0))


@gluon.jit
def load_keys(keys_of, request_of, item, kv_bars, boxes, n_edge, n_far, p_item, kv, turn, s_out):
    """Once the keys and values of the item before are free: load this item's, and tell the consumers of it."""
    k, v, k_run, v_run, kbuf, vbuf, kruns, vruns = keys_of
    kv_full, kv_empty = kv_bars
    _, i_kv, kv_first, kv_start, _ = kv
    j_first, every, o_first = item
    wait(kv_empty, (turn & 1) ^ 1)
    # what was told of the item before is still read
    tell_item(boxes, turn & 1, n_edge, n_far, item, kv, p_item + 9, s_out)
    barrier()
    expect(kv_full, 2 * KEYS * HEAD_DIM * 2)
    RUNS: gl.constexpr = ROWS // PIECE
    for w in gl.static_range(2):
        first = o_first + w * ROWS
        row = (j_first + (first >> BLOCK_BITS) * every) * BLOCK + (first & (BLOCK - 1)) + kv_first - kv_start
        if BLOCK >= ROWS:  # noqa: SIM114 (what the kernel is compiled for, then what the item is)
            load_run((k, v), (kbuf, vbuf), kv_full, request_of, i_kv, row, w * CHUNKS, 1)
        elif every == 1:
            load_run((k, v), (kbuf, vbuf), kv_full, request_of, i_kv, row, w * CHUNKS, 1)
        else:
            for p in range(RUNS):
                own = row + p * every * BLOCK
                to = w * CHUNKS * RUNS + p
                load_run((k_run, v_run), (kruns, vruns), kv_full, request_of, i_kv, own, to, RUNS)


@gluon.jit
def load_together(rows_of, bar, place, t, request_of, head, row_first, o_sum):
    """Copy the 64 rows from position t on, their LSE and their delta to this place of the ring. `row_first`: the row of
    position 0 in q; `o_sum`: likewise in LSE and delta."""
    q, dout, _q_run, _dout_run, log_sums, deltas, _, _, qbuf, gbuf, _qruns, _gruns, lbuf, dbuf = rows_of
    expect(bar, 2 * ROWS * HEAD_DIM * 2 + 2 * ROWS * 4)
    for c in gl.static_range(CHUNKS):
        load_box(q, [request_of, head, row_first + t, c * CHUNK], bar, qbuf.index(place * CHUNKS + c))
    load_box(log_sums, [o_sum + t], bar, lbuf.index(place))
    for c in gl.static_range(CHUNKS):
        load_box(dout, [request_of, head, row_first + t, c * CHUNK], bar, gbuf.index(place * CHUNKS + c))
    load_box(deltas, [o_sum + t], bar, dbuf.index(place))


@gluon.jit
def load_apart(rows_of, bar, place, n, n_slots, places, request_of, head, row_first, o_sum, ends,
               IS_STRIDE: gl.constexpr):  # fmt: skip
    """The same of slot n, whose blocks are smaller and are not neighbours. Those that are not there are not read: zeros
    take their place."""
    _q, _dout, q_run, dout_run, _, _, p_log_sum, p_delta, _qbuf, _gbuf, qruns, gruns, lbuf, dbuf = rows_of
    q_start, q_stop, _kv_stop = ends
    RUNS: gl.constexpr = ROWS // PIECE
    slots, t = rows_at(n, gl.arange(0, ROWS, ONE_WARP), places, IS_STRIDE)
    m_row = (slots < n_slots) & (t >= q_start) & (t < q_stop)
    lbuf.index(place).store(gl.load(p_log_sum + (o_sum + t), mask=m_row, other=0.0))
    dbuf.index(place).store(gl.load(p_delta + (o_sum + t), mask=m_row, other=0.0))
    fence_async_shared()
    barrier()
    expect(bar, 2 * ROWS * HEAD_DIM * 2)
    for p in range(RUNS):
        slot = n * RUNS + p
        row = row_first + row_in(slot, places, IS_STRIDE, False) * BLOCK
        row = gl.where(slot < n_slots, row, NOTHING)
        for c in gl.static_range(CHUNKS):
            to = (place * CHUNKS + c) * RUNS + p
            load_box(q_run, [request_of, head, row, c * CHUNK], bar, qruns.index(to))
            load_box(dout_run, [request_of, head, row, c * CHUNK], bar, gruns.index(to))


@gluon.jit
def load_rows(rows_of, bar, place, n, n_slots, places, request_of, head, row_first, o_sum, ends,
              IS_STRIDE: gl.constexpr):  # fmt: skip
    """The same of any slot."""
    x = n * ROWS
    t = row_in(x >> BLOCK_BITS, places, IS_STRIDE, False) * BLOCK + (x & (BLOCK - 1))
    if BLOCK >= ROWS:
        load_together(rows_of, bar, place, t, request_of, head, row_first, o_sum)
    else:
        is_one = x + ROWS <= n_slots * BLOCK
        for p in gl.static_range(1, ROWS // PIECE):
            is_one = is_one & (row_in((x >> BLOCK_BITS) + p, places, IS_STRIDE, False) * BLOCK == t + p * BLOCK)
        if is_one:
            load_together(rows_of, bar, place, t, request_of, head, row_first, o_sum)
        else:
            load_apart(rows_of, bar, place, n, n_slots, places, request_of, head, row_first, o_sum, ends, IS_STRIDE)


@gluon.jit
def is_cut(n, n_slots, places, ends, IS_STRIDE: gl.constexpr):
    """Whether a slot has rows of other sequences: of its blocks, but before or behind the queries."""
    q_start, q_stop, _kv_stop = ends
    slot, t = rows_at(n, gl.arange(0, ROWS, ONE_WARP), places, IS_STRIDE)
    foreign = (slot < n_slots) & ((t < q_start) | (t >= q_stop))
    return gl.max(foreign.to(gl.int32), 0) > 0


@gluon.jit
def clear_foreign(qrows, grows, place, n, n_slots, places, ends, IS_STRIDE: gl.constexpr):
    """Write zeros over them: a weight of 0 does not undo what is no number."""
    q_start, q_stop, _kv_stop = ends
    for p in range(ROWS // PIECE):
        x = n * ROWS + p * PIECE
        t = row_in(x >> BLOCK_BITS, places, IS_STRIDE, False) * BLOCK + (x & (BLOCK - 1))
        low = gl.minimum(gl.maximum(q_start - t, 0), PIECE)
        high = gl.minimum(gl.maximum(q_stop - t, low), PIECE)
        clear_rows(qrows, place, p * PIECE, p * PIECE + low, qrows.dtype)
        clear_rows(qrows, place, p * PIECE + high, (p + 1) * PIECE, qrows.dtype)
        clear_rows(grows, place, p * PIECE, p * PIECE + low, grows.dtype)
        clear_rows(grows, place, p * PIECE + high, (p + 1) * PIECE, grows.dtype)
