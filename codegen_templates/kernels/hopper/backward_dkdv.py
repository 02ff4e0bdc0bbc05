"""Block-sparse attention, backward, for Hopper: dK and dV over the rows of a column.

A program takes items of the table that `items.py` makes, in its order. A producer warp loads an item's 128 keys
and values, which stay, and the rows that read them in slots of 64; each of two consumers has 64 of the keys, multiplies
them with every slot whose rows keep some, and stores their sums: in dk and dv, or as a part of them that
`backward_sum.py` adds in a fixed order. So results repeat bit for bit.
"""

from ..tiles import BLOCK, HEAD_DIM, LN_2
from .backward_far import add_far, begin_far, end_far
from .backward_steps import add_rows
from .box import told
from .frame import bars_of_items, numbers, pairs, sums_of_rows, told_of_rows
from .gate import gate, run_consumer, run_producer
from .load_items import BOX
from .names import arrive, barrier, condition, fence_async_shared, gl, gluon, wait
from .notes import NOTES
from .produce_items import produce_items
from .row_masks import PIECE, WORDS, keys_told
from .store import WIDE, store_wide
from .tiles import ROWS, after


@gluon.jit
def store_float(b_x, p, o_row, o_layout: gl.constexpr, IS_MORE: gl.constexpr):
    """Store rows of `b_x` [64, HEAD_DIM] as float32, or add them to what is there, o_row behind p where that is not
    below 0. [64], in SliceLayout(1, o_layout)"""
    o_row = gl.expand_dims(o_row, 1)
    o_d = gl.expand_dims(gl.arange(0, HEAD_DIM, gl.SliceLayout(0, o_layout)), 0)
    p += o_row + o_d
    m = (o_row >= 0) & (o_d >= 0)
    if IS_MORE:
        b_x += gl.load(p, mask=m, other=0.0)
    gl.store(p, b_x, mask=m)


@gluon.jit
def places_of(W: gl.constexpr, box, o_box, s_out, layout: gl.constexpr, ARE_PARTS: gl.constexpr):
    """Where the sums of a consumer's keys go, and below 0 where they do not: the rows of dk and dv, in units of ALIGN
    numbers, or the rows of `parts`. [64], int64"""
    s_db, s_dh, s_dn, n_slots = s_out
    u = keys_told(W, box, o_box, layout)
    o_n = gl.arange(0, ROWS, layout)
    slot = o_n * 0 - 1
    for c in gl.static_range(ROWS // PIECE):
        slot = gl.where(o_n // PIECE == c, told(box, o_box + 10 + W * (ROWS // PIECE) + c), slot)
    is_there = u < told(box, o_box + 6)
    o_batch = told(box, o_box + 3).to(gl.int64)
    if ARE_PARTS:
        o = (o_batch * n_slots + slot) * (2 * BLOCK) + (u & (BLOCK - 1))
        is_there = is_there & (slot >= 0)
    else:
        o = o_batch * s_db + told(box, o_box + 4).to(gl.int64) * s_dh
        o += (u + told(box, o_box + 5)).to(gl.int64) * s_dn
        is_there = is_there & (slot < 0)
    return gl.where(is_there, o, -1)


@gluon.jit
def store_sum(W: gl.constexpr, b_x, out, parts, box, o_box, s_out, o_layout: gl.constexpr, ALIGN: gl.constexpr,
              IS_MORE: gl.constexpr):  # fmt: skip
    """Store the sums of a consumer's keys where each belongs: in `out`, or in the slot of `parts` that is its own."""
    rows: gl.constexpr = gl.SliceLayout(1, o_layout)
    if out.dtype.element_ty == gl.float32:
        o_out = places_of(W, box, o_box, s_out, rows, False)
        store_float(b_x, out, o_out * ALIGN, o_layout, IS_MORE)
    else:
        o_out = places_of(W, box, o_box, s_out, gl.SliceLayout(1, WIDE), False)
        store_wide(b_x, out, o_out * ALIGN, o_out >= 0)
    has_parts = told(box, o_box + 10 + W * (ROWS // PIECE)) >= 0
    for c in gl.static_range(1, ROWS // PIECE):
        has_parts = has_parts | (told(box, o_box + 10 + W * (ROWS // PIECE) + c) >= 0)
    if has_parts:
        o_part = places_of(W, box, o_box, s_out, rows, True)
        store_float(b_x, parts, o_part * HEAD_DIM, o_layout, False)


@gluon.jit
def consume_rows(W: gl.constexpr, dk, dv, parts, pattern, rows, scale, keys_of, ring, lines, words, kv_bars, boxes,
                 s_out, ALIGN: gl.constexpr, IS_MORE: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    """The keys 64 W .. 64 W + 63 of every item that this program takes."""
    _qview, _gview, full, empty = ring
    kv_full, kv_empty = kv_bars
    box, times = boxes
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HEAD_DIM, 16])
    place, phase = 0, 0  # in the ring
    r = 0
    wait(kv_full, 0)
    while condition(told(box, (r & 1) * BOX) > 0, disable_licm=True):
        n_edge = told(box, (r & 1) * BOX + 1)
        n_far = told(box, (r & 1) * BOX + 2)
        item = (words, times, box, (r & 1) * BOX, pattern, rows)
        b_dk = gl.zeros([ROWS, HEAD_DIM], gl.float32, o_layout)
        b_dv = gl.zeros([ROWS, HEAD_DIM], gl.float32, o_layout)
        arrive(kv_empty, count=1, pred=n_edge + n_far == 0)

        # edge slots: what is kept has been told
        for n in range(n_edge):
            wait(full.index(place), phase)
            kept = told(words, place * WORDS + W)
            if kept == 0:
                arrive(kv_empty, count=1, pred=n + 1 == n_edge + n_far)
                arrive(empty.index(place), count=1)
            else:
                b_dk, b_dv = add_rows(
                    W, keys_of, b_dk, b_dv, ring, lines, place, n + 1 == n_edge + n_far, kv_empty, kept, item, scale,
                    s_layout, o_layout
                )  # fmt: skip
            place, phase = after(place, phase, STAGES)

        # far slots: every row keeps every key
        if n_far > 0:
            wait(full.index(place), phase)
            b_s, b_dp = begin_far(W, keys_of, ring, place, s_layout)
            for _ in range(n_far - 1):
                b_dk, b_dv, b_s, b_dp, place, phase = add_far(
                    W, keys_of, b_dk, b_dv, b_s, b_dp, ring, lines, place, phase, scale, s_layout, o_layout, STAGES
                )
            b_dk, b_dv, place, phase = end_far(
                b_dk, b_dv, b_s, b_dp, ring, lines, place, phase, kv_empty, scale, s_layout, o_layout, STAGES
            )

        store_sum(W, b_dv, dv, parts + BLOCK * HEAD_DIM, box, (r & 1) * BOX, s_out, o_layout, ALIGN, IS_MORE)
        store_sum(W, b_dk * (scale * LN_2), dk, parts, box, (r & 1) * BOX, s_out, o_layout, ALIGN, IS_MORE)
        r += 1
        wait(kv_full, r & 1)


# fmt: off
DKDV_INTS = [
    "total", "lead", "count", "q_start", "q_stop", "kv_start", "kv_stop", "s_lb", "s_lh", "s_db", "s_dh", "s_dn",
    "s_items", "s_members", "slots",
]
# fmt: on


@gluon.jit(do_not_specialize=DKDV_INTS)
def attn_bwd_dkdv_hopper(
    q,  # descriptor of [batch, heads, q_len, HEAD_DIM] in boxes of 64 rows and 64 columns; when packed, batch is 1
    dout,
    q_run,  # in boxes of as many rows as are neighbours in any case
    dout_run,
    k,  # the same of [batch, kv_heads, kv_len, HEAD_DIM]
    v,
    k_run,
    v_run,
    log_sums,  # descriptors of all numbers of log_sum and delta, in boxes of 64
    deltas,
    log_sum,
    delta,
    dk,  # [batch, kv_heads, kv_len, HEAD_DIM]; float32 when a later launch adds to it
    dv,  # with the strides of dk
    parts,  # [batch, slots, 2, BLOCK, HEAD_DIM] float32
    items,  # [.., s_items], and the members they name [.., s_members]: see `items.py`
    members,
    pattern,  # what row_map reads
    rows,
    q_starts,  # [batch + 1] where a packed request's queries begin
    kv_starts,
    taken,  # [1] zero: items that programs took after their first
    scale,  # times log2(e)
    total,  # items of all requests
    lead,  # items that are taken of one request after the other
    count,  # requests
    q_start,  # the position of the first query; not read when packed, nor are the next three
    q_stop,
    kv_start,
    kv_stop,
    s_lb,  # strides of log_sum and delta
    s_lh,
    s_db: gl.int64,  # strides of dk, in units of ALIGN numbers
    s_dh: gl.int64,
    s_dn: gl.int64,
    s_items,
    s_members,
    slots: gl.int64,
    HAS_NEAR: gl.constexpr,
    HAS_STRIDES: gl.constexpr,
    ALIGN: gl.constexpr,
    IS_PACKED: gl.constexpr,
    STAGES: gl.constexpr,
    CONSUMER_REGISTERS: gl.constexpr,
    PRODUCER_REGISTERS: gl.constexpr,
):
    gl.static_assert(STAGES >= 2)  # else a consumer waits for a slot before it frees one
    kv_bufs, kv_runs, _, kv_views, _ = pairs(q.dtype, 2, PIECE)
    bufs, runs, _, views, slot_rows = pairs(q.dtype, STAGES, PIECE)
    lines, line_lanes = sums_of_rows(STAGES)
    words = numbers(STAGES * WORDS, 1)
    box = numbers(2 * BOX, 1)
    notes = numbers(NOTES, 1)
    flag = gate()
    lanes, times = told_of_rows(STAGES)
    full, empty, kv_bars = bars_of_items(STAGES, 1)
    fence_async_shared()
    barrier()

    keys_of = (k, v, k_run, v_run, kv_bufs, kv_runs)
    rows_of = (q, dout, q_run, dout_run, log_sums, deltas, log_sum, delta, bufs, runs, lines, line_lanes)
    ring = (views[0], views[1], full, empty)
    boxes = (box, times)
    s_out = (s_db, s_dh, s_dn, slots)
    IS_MORE: gl.constexpr = not HAS_NEAR
    ends = (q_start, q_stop, kv_start, kv_stop)
    tables = (items, members, pattern, rows)
    # fmt: off
    gl.warp_specialize([
        (run_consumer, (flag, gl.constexpr(consume_rows), (
            0, dk, dv, parts, pattern, rows, scale, kv_views, ring, lines, words, kv_bars, boxes, s_out, ALIGN, IS_MORE,
            STAGES))),
        (run_consumer, (flag, gl.constexpr(consume_rows), (
            1, dk, dv, parts, pattern, rows, scale, kv_views, ring, lines, words, kv_bars, boxes, s_out, ALIGN, IS_MORE,
            STAGES))),
        (run_producer, (flag, gl.constexpr(produce_items), (
            keys_of, rows_of, slot_rows, words, kv_bars, box, lanes, notes, full, empty, taken, total, lead, count,
            tables, (q_starts, kv_starts), ends, (s_lb, s_lh), (s_items, s_members), HAS_NEAR, HAS_STRIDES, IS_PACKED,
            STAGES))),
    ], [4, 1], [CONSUMER_REGISTERS, PRODUCER_REGISTERS])
    # fmt: on
