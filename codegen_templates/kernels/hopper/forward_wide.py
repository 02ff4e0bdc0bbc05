"""Block-sparse attention, forward, for Hopper and wide heads: `forward.py` where its ring does not fit.

Queries stay in shared memory until a tile's last scores are there; keys and values have rings of their own, since keys
are free a product earlier. A tile's last product ends before the next tile: the other consumer has the tensor cores
meanwhile.
"""

from ..tiles import late_zero
from .box import TILE, told
from .frame import barriers, rooms, told_of_tiles
from .gate import gate, run_consumer, run_producer
from .masks import WHOLE
from .names import arrive, barrier, condition, fence_async_shared, gl, gluon, wait
from .produce_wide import BOXES, produce_wide
from .steps_wide import finish_wide, pass_wide, step_wide
from .store import store_rows
from .tiles import ROWS, WIDTH


@gluon.jit
def consume_wide(W: gl.constexpr, given, CONSUMERS: gl.constexpr, ALIGN: gl.constexpr, K_STAGES: gl.constexpr,
                 V_STAGES: gl.constexpr):  # fmt: skip
    """The rows 64 W .. 64 W + 63 of every tile that this program takes."""
    out, lse, scale, pattern, columns, strides, qview, ring, q_bars, told_of = given
    box, words, keys = told_of
    k_full = ring[2]
    q_full, q_empty = q_bars
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, WIDTH, 16])
    at = (0, 0, 0, 0)  # places and phases in both rings
    r = 0
    wait(q_full.index(W), 0)
    while condition(told(box, r % BOXES * TILE) > 0, disable_licm=True):
        own = r % BOXES
        far = told(box, own * TILE + 2)
        edge = (keys, told(box, own * TILE + 6) + W * ROWS, told(box, own * TILE + 9), pattern, columns)

        # pass slots that these rows do not keep, but not the last
        n = told(box, own * TILE + 1) - 1
        wait(k_full.index(at[0]), at[1])
        kept = told(words, at[0] * CONSUMERS + W)
        while (n > 0) & (kept == 0):
            at = pass_wide(ring, at, K_STAGES, V_STAGES)
            n -= 1
            wait(k_full.index(at[0]), at[1])
            kept = gl.where(n >= far, told(words, at[0] * CONSUMERS + W), WHOLE)
        b_o = gl.zeros([ROWS, WIDTH], gl.float32, o_layout)
        b_p = gl.zeros([ROWS, ROWS], qview.dtype, gl.DotOperandLayout(0, o_layout, 2))  # weights of the slot `held`
        b_max = gl.full([ROWS], 0.0, gl.float32, gl.SliceLayout(1, s_layout))
        b_o, b_max, b_sum, b_p, at, held = step_wide(
            W, qview, b_o, b_max, b_max, b_p, ring, at, (0, 0), n > 0, n, kept, edge, scale, s_layout, o_layout,
            K_STAGES, V_STAGES, True, False
        )  # fmt: skip

        # the rest of the edge
        n -= 1
        gap = 0
        while n >= far:
            wait(k_full.index(at[0]), at[1])
            kept = told(words, at[0] * CONSUMERS + W)
            if (gap + 2 < V_STAGES) & (kept == 0):  # not so many that the ring stands still for the held one
                at = pass_wide(ring, at, K_STAGES, V_STAGES)
                gap += 1
            else:
                b_o, b_max, b_sum, b_p, at, held = step_wide(
                    W, qview, b_o, b_max, b_sum, b_p, ring, at, held, n > 0, n, kept, edge, scale, s_layout, o_layout,
                    K_STAGES, V_STAGES, False, False
                )  # fmt: skip
                gap = 0
            n -= 1

        # far slots: every row keeps every key
        wait(k_full.index(at[0]), at[1], pred=n >= 0)
        for i in range(n + 1):
            b_o, b_max, b_sum, b_p, at, held = step_wide(
                W, qview, b_o, b_max, b_sum, b_p, ring, at, held, i < n, n, 0, edge, scale, s_layout, o_layout,
                K_STAGES, V_STAGES, False, True
            )  # fmt: skip
        arrive(q_empty.index(W), count=1)
        b_o = finish_wide(b_o, b_p, ring, held)
        late = late_zero(at[0])
        store_rows(b_o, b_max, b_sum, out, lse, strides, box, own + late, W, late, ALIGN, s_layout, o_layout)
        r += 1
        wait(q_full.index(W), r & 1)


# fmt: off
WIDE_INTS = [
    "tiles", "total", "heads", "t_begin", "q_start", "q_stop", "kv_start", "kv_stop", "s_ob", "s_oh", "s_on", "s_lb",
    "s_lh", "s_pages", "periods",
]
# fmt: on


@gluon.jit(do_not_specialize=WIDE_INTS)  # one binary serves every length
def attn_fwd_wide_hopper(
    q,  # these arguments are those of `attn_fwd_hopper`
    k,
    v,
    k_run,
    v_run,
    k_far,
    v_far,
    out,
    lse,
    groups,
    pattern,
    columns,
    q_starts,
    kv_starts,
    pages,
    taken,
    scale,
    tiles,
    total,
    heads,
    t_begin,
    q_start,
    q_stop,
    kv_start,
    kv_stop,
    s_ob: gl.int64,
    s_oh: gl.int64,
    s_on,
    s_lb: gl.int64,
    s_lh: gl.int64,
    s_pages: gl.int64,
    periods,
    CONSUMERS: gl.constexpr,
    PAGE: gl.constexpr,
    RUN: gl.constexpr,
    EVERY: gl.constexpr,
    ALIGN: gl.constexpr,
    IS_PACKED: gl.constexpr,
    K_STAGES: gl.constexpr,
    V_STAGES: gl.constexpr,
    CONSUMER_REGISTERS: gl.constexpr,
    PRODUCER_REGISTERS: gl.constexpr,
):
    gl.static_assert(V_STAGES >= 2)  # else a consumer waits for the next slot before it frees its values
    qbuf, _, _, qview, _ = rooms(q.dtype, CONSUMERS, ROWS)
    kbuf, kruns, kfars, kview, _ = rooms(q.dtype, K_STAGES, RUN)
    vbuf, vruns, vfars, vview, vrows = rooms(q.dtype, V_STAGES, RUN)
    k_bars = (barriers(K_STAGES, 1), barriers(K_STAGES, CONSUMERS))
    v_bars = (barriers(V_STAGES + 1, 1), barriers(V_STAGES, CONSUMERS))  # the last full one: of the producer's own
    bars = (barriers(CONSUMERS, 1), barriers(CONSUMERS, 1))
    told_of = told_of_tiles(BOXES, K_STAGES, CONSUMERS)
    flag = gate()
    fence_async_shared()
    barrier()

    ends = (t_begin, q_start, q_stop, kv_start, kv_stop)
    strides = (s_ob, s_oh, s_on, s_lb, s_lh)
    starts = (q_starts, kv_starts)
    rings = (k_bars[0], k_bars[1], v_bars[0], v_bars[1])
    ring = (kview, vview, k_bars[0], k_bars[1], v_bars[0], v_bars[1])
    given = (out, lse, scale, pattern, columns, strides, qview, ring, bars, told_of)
    of_keys = (((k,), (k_run,), (k_far,)), ((kbuf,), (kruns,), (kfars,)))
    of_values = (((v,), (v_run,), (v_far,)), ((vbuf,), (vruns,), (vfars,)))
    # fmt: off
    gl.warp_specialize([
        (run_consumer, (flag, gl.constexpr(consume_wide), (0, given, CONSUMERS, ALIGN, K_STAGES, V_STAGES))),
        (run_consumer, (flag, gl.constexpr(consume_wide), (1, given, CONSUMERS, ALIGN, K_STAGES, V_STAGES))),
        (run_producer, (flag, gl.constexpr(produce_wide), (
            q, of_keys, of_values, vrows, qbuf, rings, bars, told_of, taken, tiles, total, heads, groups, starts, ends,
            pattern, columns, pages, s_pages, periods, CONSUMERS, PAGE, RUN, EVERY, IS_PACKED, K_STAGES, V_STAGES))),
    ], [4, 1], [CONSUMER_REGISTERS, PRODUCER_REGISTERS])
    # fmt: on
