"""Block-sparse attention, forward, for Hopper: a producer warp walks the index map, consumer warpgroups multiply.

A program stays on its processor to the end and takes tiles as it is free. Its producer loads queries, keys and values
by TMA; each consumer multiplies 64 rows of the tile with every slot that they keep. While a consumer works out the
weights of one slot, the weights of the slot before meet their values; the first slot of a tile takes the last of the
tile before along, and then that tile's output is stored.
"""

from ..tiles import late_zero
from .box import TILE, told
from .frame import barriers, ring_of, rooms, told_of_tiles
from .gate import gate, run_consumer, run_producer
from .masks import WHOLE
from .names import arrive, barrier, condition, fence_async_shared, gl, gluon, wait
from .produce import produce
from .steps import FLOOR, LANES, finish, meet, start, step
from .store import store_rows
from .tiles import ROWS, WIDTH, after


@gluon.jit
def consume(W: gl.constexpr, given, CONSUMERS: gl.constexpr, ALIGN: gl.constexpr, STAGES: gl.constexpr):
    """The rows 64 W .. 64 W + 63 of every tile that this program takes."""
    out, lse, scale, pattern, columns, strides, qview, ring, q_bars, told_of = given
    box, words, keys = told_of
    kview, _vview, full, empty = ring
    q_full, q_empty = q_bars
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, WIDTH, 16])

    b_o = gl.zeros([ROWS, WIDTH], gl.float32, o_layout)  # of the tile before, then of this one
    b_p = gl.zeros([ROWS, ROWS], kview.dtype, gl.DotOperandLayout(0, o_layout, 2))  # weights of the slot `held`
    b_max = gl.full([ROWS], FLOOR, gl.float32, gl.SliceLayout(1, s_layout))
    b_sum = gl.full([ROWS, 4], 0.0, gl.float32, LANES)
    place, phase = 0, 0  # in the ring
    held = -1  # place of the slot whose weights have not met their values
    gap = 0  # slots passed since that one, of this tile or the one before

    r = 0
    wait(q_full, 0)
    # where there are registers for what follows from a thread's place, it is worked out once: far slots are shorter
    while condition(told(box, (r & 1) * TILE) > 0, disable_licm=CONSUMERS == 3):
        own = r & 1
        n_all = told(box, own * TILE + 1)
        far = told(box, own * TILE + 2)
        edge = (keys, told(box, own * TILE + 6) + W * ROWS, told(box, own * TILE + 9), pattern, columns)
        late = late_zero(place)
        b_q = qview.index(W + late).load(gl.DotOperandLayout(0, s_layout, 2))

        # pass slots that these rows do not keep; not the last, nor so many that the ring stands still for the held one
        n = n_all - 1
        wait(full.index(place), phase)
        kept = told(words, place * CONSUMERS + W)
        while (n > 0) & (gap + 3 < STAGES) & (kept == 0):
            arrive(empty.index(place), count=1)
            place, phase = after(place, phase, STAGES)
            gap += 1
            n -= 1
            wait(full.index(place), phase)
            kept = gl.where(n >= far, told(words, place * CONSUMERS + W), WHOLE)
        if held >= 0:
            old_max, old_sum = b_max, b_sum
            b_o, b_max, b_sum, b_p, place, phase, held = meet(
                b_q, b_o, b_p, ring, place, phase, held, n, kept, edge, scale, s_layout, o_layout, STAGES
            )
            store_rows(
                b_o, old_max, old_sum, out, lse, strides, box, 1 - own, W, late, ALIGN, s_layout, o_layout
            )  # fmt: skip
        else:
            b_max, b_sum, b_p, place, phase, held = start(
                b_q, ring, place, phase, n, kept, edge, scale, s_layout, o_layout, STAGES
            )
        fence_async_shared()
        arrive(q_empty, count=1)  # the queries are in registers, and what was told of the tile before is used
        b_o = gl.zeros([ROWS, WIDTH], gl.float32, o_layout)

        # the rest of the edge
        n -= 1
        gap = 0
        while n >= far:
            wait(full.index(place), phase)
            kept = told(words, place * CONSUMERS + W)
            if (gap + 3 < STAGES) & (kept == 0):
                arrive(empty.index(place), count=1)
                place, phase = after(place, phase, STAGES)
                gap += 1
            else:
                b_o, b_max, b_sum, b_p, place, phase, held = step(
                    b_q, b_o, b_max, b_sum, b_p, ring, place, phase, held, n > 0, n, kept, edge, scale, s_layout,
                    o_layout, STAGES, False
                )  # fmt: skip
                gap = 0
            n -= 1

        # far slots: every row keeps every key
        gap = gl.where(n >= 0, 0, gap)
        wait(full.index(place), phase, pred=n >= 0)
        for i in range(n + 1):
            b_o, b_max, b_sum, b_p, place, phase, held = step(
                b_q, b_o, b_max, b_sum, b_p, ring, place, phase, held, i < n, n, 0, edge, scale, s_layout, o_layout,
                STAGES, True
            )  # fmt: skip
        r += 1
        wait(q_full, r & 1)
    if held >= 0:  # there was a tile
        b_o = finish(b_o, b_p, ring, held)
        store_rows(
            b_o, b_max, b_sum, out, lse, strides, box, 1 - (r & 1), W, late_zero(place), ALIGN, s_layout, o_layout
        )  # fmt: skip


# fmt: off
RUNTIME_INTS = [
    "tiles", "total", "heads", "t_begin", "q_start", "q_stop", "kv_start", "kv_stop", "s_ob", "s_oh", "s_on", "s_lb",
    "s_lh", "s_pages", "periods",
]
# fmt: on


@gluon.jit(do_not_specialize=RUNTIME_INTS)  # one binary serves every length
def attn_fwd_hopper(
    q,  # descriptor of [batch, heads, q_len, HEAD_DIM] in boxes of 64 rows and 64 columns; when packed, batch is 1
    k,  # the same of [batch, kv_heads, kv_len, HEAD_DIM], or of pages [pages, kv_heads, PAGE, HEAD_DIM]
    v,
    k_run,  # in boxes of RUN rows; where RUN is 64 not a descriptor, and not read
    v_run,
    k_far,  # [batch, kv_heads, periods, EVERY * BLOCK, HEAD_DIM] in boxes of a block in each of 64 // BLOCK periods
    v_far,  # where EVERY is 0 neither is a descriptor
    out,
    lse,
    groups,  # [heads, 3]: KV head, the class's place in `pattern`, query head
    pattern,  # what index_map reads
    columns,
    q_starts,  # [batch + 1] where a packed request's queries begin
    kv_starts,
    pages,
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
    s_ob: gl.int64,  # strides of out, in units of ALIGN numbers
    s_oh: gl.int64,
    s_on,
    s_lb: gl.int64,
    s_lh: gl.int64,
    s_pages: gl.int64,
    periods,  # whole ones, of EVERY * BLOCK rows, in k and v
    CONSUMERS: gl.constexpr,
    PAGE: gl.constexpr,
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
    buffers, ring, kv_rows = ring_of(q.dtype, STAGES, RUN, CONSUMERS)
    bars = (barriers(1, 1).index(0), barriers(1, CONSUMERS).index(0))
    told_of = told_of_tiles(2, STAGES, CONSUMERS)
    flag = gate()
    fence_async_shared()
    barrier()

    ends = (t_begin, q_start, q_stop, kv_start, kv_stop)
    strides = (s_ob, s_oh, s_on, s_lb, s_lh)
    starts = (q_starts, kv_starts)
    descriptors = ((k, v), (k_run, v_run), (k_far, v_far))
    given = (out, lse, scale, pattern, columns, strides, qview, ring, bars, told_of)
    # fmt: off
    if CONSUMERS == 2:
        gl.warp_specialize([
            (run_consumer, (flag, gl.constexpr(consume), (0, given, CONSUMERS, ALIGN, STAGES))),
            (run_consumer, (flag, gl.constexpr(consume), (1, given, CONSUMERS, ALIGN, STAGES))),
            (run_producer, (flag, gl.constexpr(produce), (
                (q,), descriptors, buffers, kv_rows[1], (qbuf,), ring[2], ring[3], bars, told_of, taken, tiles, total,
                heads, groups, starts, ends, pattern, columns, pages, s_pages, periods, CONSUMERS, PAGE, RUN, EVERY,
                IS_PACKED, STAGES))),
        ], [4, 1], [CONSUMER_REGISTERS, PRODUCER_REGISTERS])
    else:
        gl.static_assert(CONSUMERS == 3)
        gl.warp_specialize([
            (run_consumer, (flag, gl.constexpr(consume), (0, given, CONSUMERS, ALIGN, STAGES))),
            (run_consumer, (flag, gl.constexpr(consume), (1, given, CONSUMERS, ALIGN, STAGES))),
            (run_consumer, (flag, gl.constexpr(consume), (2, given, CONSUMERS, ALIGN, STAGES))),
            (run_producer, (flag, gl.constexpr(produce), (
                (q,), descriptors, buffers, kv_rows[1], (qbuf,), ring[2], ring[3], bars, told_of, taken, tiles, total,
                heads, groups, starts, ends, pattern, columns, pages, s_pages, periods, CONSUMERS, PAGE, RUN, EVERY,
                IS_PACKED, STAGES))),
        ], [4, 4, 1], [CONSUMER_REGISTERS, CONSUMER_REGISTERS, PRODUCER_REGISTERS])
    # fmt: on
