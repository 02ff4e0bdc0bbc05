"""Block-sparse attention, backward, for Hopper: dK, dV and dQ in one walk over the rows of a column.

Five products a slot instead of the seven of `backward_dq.py` and `backward_dkdv.py`. A program takes items of the table
that `launch/fused_items.py` makes, in order. A producer warp loads an item's 128 keys and values, which stay, and the
rows that read them in slots of 64, the last first; each of two consumers has 64 of the keys for dK and dV. Both leave
the gradients of their scores in shared memory, and then each makes half of dQ's columns from all 128 keys. A fourth
partition, one warp, adds what they have made to a float32 dQ in memory, in a fixed order: see `add_tiles.py`. So
results repeat bit for bit.

Nothing waits in a cycle. Among programs: an item waits only for items before it in the table. Programs take items in
the table's order, the first of each too, from one counter: so an item that was taken is held by a program that runs,
and the first of those that have not ended waits for nobody. Within a program: the producer waits for consumers to free
slots and keys. These wait for its loads, for each other's gradients of one slot, which are left before either waits,
and for the adder to free the room of a tile. The adder waits for tiles, which it takes as they are made, and for
programs that hold items before its own.
"""

from ..tiles import BLOCK, HEAD_DIM, LN_2
from .add_tiles import HALF, STRIP, STRIPS, TOLD, add_tiles, tell_end
from .backward_dkdv import store_sum
from .box import told
from .frame import barriers, bars_of_items, numbers, pairs, sums_of_rows, told_of_rows
from .fused_steps import pass_rows, step_rows
from .load_items import BOX
from .masks import WHOLE
from .names import arrive, barrier, fence_async_shared, gl, gluon, reinterpret, wait
from .produce_fused import LEFT, NOTES, WORDS, produce_fused
from .row_masks import PIECE
from .tiles import ROWS


@gluon.jit
def consume_rows(W: gl.constexpr, dk, dv, parts, pattern, scale, keys_of, ring, lines, words, lasts, kv_bars,
                 box, tiles, s_out, ALIGN: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    """The keys 64 W .. 64 W + 63 of every item that this program takes, and half W of the columns of dQ."""
    _qview, _gview, full, _empty = ring
    kv_full, k_empty = kv_bars
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HEAD_DIM, 16])
    turn = 0  # slots so far: their place in the ring follows from it, and each parity
    r = 0
    wait(kv_full, 0)
    while told(box, (r & 1) * BOX) > 0:
        b_dk = gl.zeros([ROWS, HEAD_DIM], gl.float32, o_layout)
        b_dv = gl.zeros([ROWS, HEAD_DIM], gl.float32, o_layout)
        left = told(box, (r & 1) * BOX + 1)
        arrive(k_empty, count=1, pred=left == 0)
        while left > 0:
            place = turn & (STAGES - 1)
            phase = turn // STAGES & 1
            wait(full.index(place), phase)
            left = told(words, place * WORDS + LEFT)
            kept = told(words, place * WORDS + W)
            item = (words, lasts, box, (r & 1) * BOX, pattern)
            if kept == WHOLE:
                b_dk, b_dv = step_rows(
                    W, keys_of, b_dk, b_dv, ring, lines, place, phase, turn, left, k_empty, kept, item, tiles,
                    scale, s_layout, o_layout, True
                )  # fmt: skip
            elif kept != 0:
                b_dk, b_dv = step_rows(
                    W, keys_of, b_dk, b_dv, ring, lines, place, phase, turn, left, k_empty, kept, item, tiles,
                    scale, s_layout, o_layout, False
                )  # fmt: skip
            else:
                pass_rows(W, keys_of, ring, place, turn, left, k_empty, words, tiles, s_layout)
            turn += 1
        o_box = (r & 1) * BOX
        store_sum(W, b_dv, dv, parts + BLOCK * HEAD_DIM, box, o_box, s_out, o_layout, ALIGN, False)
        store_sum(W, b_dk * (scale * LN_2), dk, parts, box, o_box, s_out, o_layout, ALIGN, False)
        r += 1
        wait(kv_full, r & 1)
    tell_end(W, turn, tiles)


# fmt: off
FUSED_INTS = [
    "total", "count", "q_start", "q_stop", "kv_start", "kv_stop", "s_lb", "s_lh", "s_db", "s_dh", "s_dn", "s_items",
    "slots", "heads", "dq_slots",
]
# fmt: on


@gluon.jit(do_not_specialize=FUSED_INTS)
def attn_bwd_fused_hopper(
    q,  # descriptor of [batch, heads, q_len, HEAD_DIM] in boxes of 64 rows and 64 columns
    dout,
    k_run,  # the same of [batch, kv_heads, kv_len, HEAD_DIM], in boxes of as many rows as are neighbours in any case
    v_run,
    log_sums,  # descriptors of all numbers of log_sum and delta, in boxes of 64
    deltas,
    dk,  # [batch, kv_heads, kv_len, HEAD_DIM]
    dv,  # with the strides of dk
    parts,  # [batch, slots, 2, BLOCK, HEAD_DIM] float32
    dq_sums,  # [batch, heads, dq_slots, HEAD_DIM / 32, 64, 32] float32
    added,  # [batch, heads, dq_slots] zero: how many items have added to a tile of dq_sums
    items,  # [.., s_items]: see `launch/fused_items.py`, as of what they name
    members,
    lists,
    ranks,
    pattern,  # what row_map reads of a class
    taken,  # [1] zero: items that programs took
    scale,  # times log2(e)
    total,  # items of all requests
    count,  # requests
    q_start,  # the position of the first query
    q_stop,
    kv_start,
    kv_stop,
    s_lb,  # strides of log_sum and delta
    s_lh,
    s_db: gl.int64,  # strides of dk, in units of ALIGN numbers
    s_dh: gl.int64,
    s_dn: gl.int64,
    s_items,
    slots: gl.int64,
    heads,
    dq_slots,
    ALIGN: gl.constexpr,
    STAGES: gl.constexpr,
    CONSUMER_REGISTERS: gl.constexpr,
    OTHER_REGISTERS: gl.constexpr,
):
    gl.static_assert(STAGES >= 2 and STAGES & (STAGES - 1) == 0)  # a place in the ring is a few bits of a count
    flat: gl.constexpr = gl.NVMMASharedLayout(128, 16, rank=2)
    wide: gl.constexpr = gl.NVMMASharedLayout(128, 32, rank=2)
    _, kv_runs, _, keys_of, _ = pairs(q.dtype, 2, PIECE)
    bufs, _, _, views, _ = pairs(q.dtype, STAGES, PIECE)
    lines, _ = sums_of_rows(STAGES)
    grads = gl.allocate_shared_memory(q.dtype, [4, ROWS, ROWS], flat)  # of scores: of both consumers, in turn
    halves = gl.allocate_shared_memory(gl.float32, [2, ROWS, HALF], wide)  # of a tile of dQ
    strips = reinterpret(halves, gl.float32, [STRIPS, STRIP, 32], wide)
    words = numbers(STAGES * WORDS, 1)
    lanes, lasts = told_of_rows(STAGES)
    box = numbers(2 * BOX, 1)
    told_tile = numbers(TOLD, 1)
    notes = numbers(NOTES, 1)
    full, empty, kv_bars = bars_of_items(STAGES, 0)
    made = barriers(1, 2).index(0)  # both consumers have left the gradients of a slot's scores
    tile_full, tile_empty = barriers(1, 2).index(0), barriers(1, 1).index(0)
    fence_async_shared()
    barrier()

    ring = (views[0], views[1], full, empty)
    tiles = (grads, halves, told_tile, made, tile_full, tile_empty)
    s_out = (s_db, s_dh, s_dn, slots)
    ends = (q_start, q_stop, kv_start, kv_stop)
    # fmt: off
    gl.warp_specialize([
        (consume_rows, (0, dk, dv, parts, pattern, scale, keys_of, ring, lines, words, lasts, kv_bars, box, tiles,
                        s_out, ALIGN, STAGES)),
        (consume_rows, (1, dk, dv, parts, pattern, scale, keys_of, ring, lines, words, lasts, kv_bars, box, tiles,
                        s_out, ALIGN, STAGES)),
        (produce_fused, ((k_run, v_run, kv_runs), (q, dout, log_sums, deltas), (bufs, lines), words, lanes, kv_bars,
                         box, notes, full, empty, taken, total, count, (items, members, lists, ranks), ends,
                         (s_lb, s_lh), (heads, dq_slots), s_items, STAGES)),
        (add_tiles, (dq_sums, added, strips, told_tile, tile_full, tile_empty)),
    ], [4, 1, 1], [CONSUMER_REGISTERS, OTHER_REGISTERS, OTHER_REGISTERS])
    # fmt: on
