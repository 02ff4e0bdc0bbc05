"""Block-sparse attention, backward, for Hopper: dQ over the columns of a row, in the tiles of the Hopper forward.

The producer is the forward's; it loads the gradient of the output beside the queries. While a consumer works out the
gradients of one slot's scores, those of the slot before meet its keys.
"""

from ..tiles import HEAD_DIM, LN_2
from .backward_steps import step_dq
from .box import TILE, rows_told, told
from .frame import barriers, ring_of, rooms, told_of_tiles
from .gate import gate, run_consumer, run_producer
from .masks import WHOLE
from .names import arrive, barrier, condition, fence_async_shared, gl, gluon, wait, warpgroup_mma, warpgroup_mma_wait
from .produce import produce
from .store import WIDE, store_wide
from .tiles import ROWS, after


@gluon.jit
def consume_columns(W: gl.constexpr, dq, log_sum, delta, scale, pattern, columns, strides, qview, gview, ring,
                    q_bars, told_of, CONSUMERS: gl.constexpr, ALIGN: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    """The rows 64 W .. 64 W + 63 of every tile that this program takes."""
    box, words, keys = told_of
    s_ob, s_oh, s_on, s_lb, s_lh = strides
    kview, _vview, full, empty = ring
    q_full, q_empty = q_bars
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HEAD_DIM, 16])
    q = qview.index(W)
    dout = gview.index(W)
    place, phase = 0, 0  # in the ring
    r = 0
    wait(q_full, 0)
    while condition(told(box, (r & 1) * TILE) > 0, disable_licm=True):
        own = r & 1
        n_all = told(box, own * TILE + 1)
        far = told(box, own * TILE + 2)
        i_batch, i_head, i_row, t_base, q_start, q_stop = rows_told(box, own)
        t_low = t_base + W * ROWS
        edge = (keys, t_low, told(box, own * TILE + 9), pattern, columns)
        o_m = gl.arange(0, ROWS, gl.SliceLayout(1, s_layout))
        m_row = (t_low + o_m >= q_start) & (t_low + o_m < q_stop)
        o_sum = i_batch.to(gl.int64) * s_lb + i_head.to(gl.int64) * s_lh + i_row + W * ROWS
        b_log_sum = gl.load(log_sum + (o_sum + o_m), mask=m_row, other=float("inf"))
        b_delta = gl.load(delta + (o_sum + o_m), mask=m_row, other=0.0)

        # pass slots that these rows do not keep, but not the last
        n = n_all - 1
        wait(full.index(place), phase)
        kept = told(words, place * CONSUMERS + W)
        while (n > 0) & (kept == 0):
            arrive(empty.index(place), count=1)
            place, phase = after(place, phase, STAGES)
            n -= 1
            wait(full.index(place), phase)
            kept = gl.where(n >= far, told(words, place * CONSUMERS + W), WHOLE)
        b_dq = gl.zeros([ROWS, HEAD_DIM], gl.float32, o_layout)
        b_ds = gl.zeros([ROWS, ROWS], kview.dtype, gl.DotOperandLayout(0, o_layout, 2))  # of the slot `held`
        b_dq, b_ds, place, phase, held = step_dq(
            q, dout, b_dq, b_ds, b_log_sum, b_delta, ring, place, phase, 0, n > 0, n, kept, edge, scale, s_layout,
            o_layout, STAGES, True, False
        )  # fmt: skip

        # the rest of the edge
        n -= 1
        gap = 0
        while n >= far:
            wait(full.index(place), phase)
            kept = told(words, place * CONSUMERS + W)
            if (gap + 3 < STAGES) & (kept == 0):  # not so many that the ring stands still for the held one
                arrive(empty.index(place), count=1)
                place, phase = after(place, phase, STAGES)
                gap += 1
            else:
                b_dq, b_ds, place, phase, held = step_dq(
                    q, dout, b_dq, b_ds, b_log_sum, b_delta, ring, place, phase, held, n > 0, n, kept, edge, scale,
                    s_layout, o_layout, STAGES, False, False
                )  # fmt: skip
                gap = 0
            n -= 1

        # far slots: every row keeps every key
        wait(full.index(place), phase, pred=n >= 0)
        for i in range(n + 1):
            b_dq, b_ds, place, phase, held = step_dq(
                q, dout, b_dq, b_ds, b_log_sum, b_delta, ring, place, phase, held, i < n, n, 0, edge, scale, s_layout,
                o_layout, STAGES, False, True
            )  # fmt: skip

        # where the tile lies once more, so that it holds no registers during the loops
        i_batch, i_head, i_row, t_base, q_start, q_stop = rows_told(box, own)
        arrive(q_empty, count=1)
        b_dq = warpgroup_mma(b_ds, kview.index(held), b_dq, is_async=True)
        b_dq = warpgroup_mma_wait(0, deps=(b_dq,))
        arrive(empty.index(held), count=1)
        o_row = (i_row + W * ROWS).to(gl.int64) * s_on
        p_dq = dq + (i_batch.to(gl.int64) * s_ob + i_head.to(gl.int64) * s_oh + o_row) * ALIGN
        o_m = gl.arange(0, ROWS, gl.SliceLayout(1, WIDE))
        t = t_base + W * ROWS + o_m
        store_wide(b_dq * (scale * LN_2), p_dq, o_m * (s_on * ALIGN), (t >= q_start) & (t < q_stop))
        r += 1
        wait(q_full, r & 1)


# fmt: off
DQ_INTS = [
    "tiles", "total", "heads", "t_begin", "q_start", "q_stop", "kv_start", "kv_stop", "s_ob", "s_oh", "s_on", "s_lb",
    "s_lh", "periods",
]
# fmt: on


@gluon.jit(do_not_specialize=DQ_INTS)
def attn_bwd_dq_hopper(
    q,  # descriptor of [batch, heads, q_len, HEAD_DIM] in boxes of 64 rows and 64 columns; when packed, batch is 1
    dout,
    k,  # the same of [batch, kv_heads, kv_len, HEAD_DIM]
    v,
    k_run,  # in boxes of RUN rows; where RUN is 64 not a descriptor, and not read
    v_run,
    k_far,  # [batch, kv_heads, periods, EVERY * BLOCK, HEAD_DIM] in boxes of a block in each of 64 // BLOCK periods
    v_far,  # where EVERY is 0 neither is a descriptor
    dq,
    log_sum,  # [batch, heads, q_len]
    delta,
    groups,  # [heads, 3]: KV head, the class's place in `pattern`, query head
    pattern,  # what index_map reads
    columns,
    q_starts,  # [batch + 1] where a packed request's queries begin
    kv_starts,
    taken,  # [1] zero: tiles that programs took after their first
    scale,  # times log2(e)
    tiles,  # of a request and head
    total,
    heads,
    t_begin,  # the first tile's first position; not read when packed, nor are the next four
    q_start,  # the position of the first query
    q_stop,
    kv_start,
    kv_stop,
    s_ob: gl.int64,  # strides of dq, in units of ALIGN numbers
    s_oh: gl.int64,
    s_on,
    s_lb: gl.int64,
    s_lh: gl.int64,
    periods,  # whole ones, of EVERY * BLOCK rows, in k and v
    CONSUMERS: gl.constexpr,
    RUN: gl.constexpr,
    EVERY: gl.constexpr,
    ALIGN: gl.constexpr,
    IS_PACKED: gl.constexpr,
    STAGES: gl.constexpr,
    CONSUMER_REGISTERS: gl.constexpr,
    PRODUCER_REGISTERS: gl.constexpr,
):
    gl.static_assert(STAGES >= 3)  # else a consumer waits for a slot before it frees one
    qbuf, _, _, qview, _ = rooms(q.dtype, CONSUMERS, ROWS)
    gbuf, _, _, gview, _ = rooms(q.dtype, CONSUMERS, ROWS)
    buffers, ring, kv_rows = ring_of(q.dtype, STAGES, RUN, CONSUMERS)
    bars = (barriers(1, 1).index(0), barriers(1, CONSUMERS).index(0))
    told_of = told_of_tiles(2, STAGES, CONSUMERS)
    flag = gate()
    fence_async_shared()
    barrier()

    ends = (t_begin, q_start, q_stop, kv_start, kv_stop)
    strides = (s_ob, s_oh, s_on, s_lb, s_lh)
    descriptors = ((k, v), (k_run, v_run), (k_far, v_far))
    # fmt: off
    gl.warp_specialize([
        (run_consumer, (flag, gl.constexpr(consume_columns), (
            0, dq, log_sum, delta, scale, pattern, columns, strides, qview, gview, ring, bars, told_of, CONSUMERS,
            ALIGN, STAGES))),
        (run_consumer, (flag, gl.constexpr(consume_columns), (
            1, dq, log_sum, delta, scale, pattern, columns, strides, qview, gview, ring, bars, told_of, CONSUMERS,
            ALIGN, STAGES))),
        (run_producer, (flag, gl.constexpr(produce), (
            (q, dout), descriptors, buffers, kv_rows[0], (qbuf, gbuf), ring[2], ring[3], bars, told_of, taken, tiles,
            total, heads, groups, (q_starts, kv_starts), ends, pattern, columns, groups, 0, periods, CONSUMERS, 0, RUN,
            EVERY, IS_PACKED, STAGES))),
    ], [4, 1], [CONSUMER_REGISTERS, PRODUCER_REGISTERS])
    # fmt: on
