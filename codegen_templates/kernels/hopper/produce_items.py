"""The producer of dK and dV: one warp that hands out items, walks the rows that read their keys, and loads both by TMA.

An item is one of `backward_item.py`: 128 keys and the rows of one kind that read them, of one query head after the
other. First come all heads' edge slots, of which it is told what they keep, then the far ones, which keep every key.
"""

from ..rounds import columns_at, portion, slots_of
from ..tiles import BLOCK, request
from .box import write
from .load_items import BOX, KEYS, clear_foreign, is_cut, load_keys, load_rows
from .names import arrive, barrier, gl, gluon, wait
from .produce import next_tile
from .row_masks import tell_rows
from .tiles import ROWS, after


@gluon.jit
def member_at(m, p_members, p_item, pattern, rows, ends, IS_STRIDE: gl.constexpr):
    """Head m of an item: its number, its far slots and all, as `rounds.slots_of` says them, in slots of 64 rows."""
    q_start, q_stop, kv_stop = ends
    p_member = p_members + 2 + 2 * m
    head, n_far, n_slots, places, rule = slots_of(
        p_member, p_item, pattern, rows, q_start, q_stop, kv_stop, IS_STRIDE, KEYS
    )
    far = n_far * BLOCK // ROWS
    return head, far, (n_slots * BLOCK + ROWS - 1) // ROWS, n_slots, places, rule


@gluon.jit
def count_slots(n_members, p_members, p_item, pattern, rows, ends, IS_STRIDE: gl.constexpr, IS_ALL: gl.constexpr):
    """How many edge and far slots an item has, of all its heads."""
    n_edge, n_far = n_members * 0, n_members * 0
    for m in range(n_members):
        head, far, n_all, _, _, _ = member_at(m, p_members, p_item, pattern, rows, ends, IS_STRIDE)
        start, stop = portion(n_all - far, p_item, head, IS_ALL)
        n_edge += stop - start
        start, stop = portion(far, p_item, head, IS_ALL)
        n_far += stop - start
    return n_edge, n_far


@gluon.jit
def walk(keys_of, rows_of, cleared, told_rows, kv_bars, boxes, full, empty, state, p_item, pattern, rows, kv, ends,
         q_first, s_sums, s_out, IS_STRIDE: gl.constexpr, IS_ALL: gl.constexpr, IS_PACKED: gl.constexpr,
         STAGES: gl.constexpr):  # fmt: skip
    """Load the keys of one item and all slots of its rows."""
    place, phase, turn, tails = state
    p_members, i_batch = told_rows[2], kv[0]
    s_lb, s_lh = s_sums
    qrows, grows = cleared
    item = columns_at(p_item, KEYS)
    request_of = i_batch
    if IS_PACKED:
        request_of = 0 * i_batch
    n_members = gl.load(p_members + 1)
    n_edge, n_far = count_slots(n_members, p_members, p_item, pattern, rows, ends, IS_STRIDE, IS_ALL)
    first = gl.minimum(n_edge + n_far, 2) - 1  # the slot after which the keys are loaded: those before do not wait
    if first < 0:
        load_keys(keys_of, request_of, item, kv_bars, boxes, n_edge, n_far, p_item, kv, turn, s_out)
    x = n_edge * 0
    for IS_FAR in gl.static_range(2):
        for m in range(n_members):
            head, far, n_all, n_slots, places, rule = member_at(m, p_members, p_item, pattern, rows, ends, IS_STRIDE)
            row_first = q_first - ends[0]
            o_sum = i_batch * s_lb + head * s_lh + row_first
            if IS_FAR:
                start, stop = portion(far, p_item, head, IS_ALL)
            else:
                start, stop = portion(n_all - far, p_item, head, IS_ALL)
                start, stop = start + far, stop + far
            for n in range(start, stop):
                wait(empty.index(place), phase ^ 1)
                bar = place
                if not IS_FAR:
                    words, times = told_rows[0], told_rows[1]
                    i_class = gl.load(p_members + 3 + 2 * m)
                    tell_rows(words, times, place, n, n_slots, places, rule, item, ends, i_class, IS_STRIDE)
                    barrier()
                    if IS_PACKED:
                        is_foreign = is_cut(n, n_slots, places, ends, IS_STRIDE)
                        bar = gl.where(is_foreign, STAGES, place)
                load_rows(rows_of, full.index(bar), place, n, n_slots, places, request_of, head, row_first, o_sum,
                          ends, IS_STRIDE)  # fmt: skip
                if IS_PACKED and not IS_FAR:  # noqa: SIM102 (what the kernel is compiled for, then what the slot is)
                    if is_foreign:
                        wait(full.index(STAGES), tails & 1)
                        clear_foreign(qrows, grows, place, n, n_slots, places, ends, IS_STRIDE)
                        arrive(full.index(place), count=1)
                        tails += 1
                place, phase = after(place, phase, STAGES)
                if x == first:
                    load_keys(keys_of, request_of, item, kv_bars, boxes, n_edge, n_far, p_item, kv, turn, s_out)
                x += 1
    return place, phase, turn + 1, tails


@gluon.jit
def produce_items(keys_of, rows_of, cleared, told_rows, kv_bars, boxes, full, empty, taken, total, count, tables,
                  starts, ends, s_sums, sizes, s_out, HAS_NEAR: gl.constexpr, HAS_STRIDES: gl.constexpr,
                  IS_PACKED: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    kv_full, kv_empty = kv_bars
    items, members, pattern, rows = tables
    q_starts, kv_starts = starts
    s_items, s_members = sizes
    place, phase, turn, tails = 0, 0, 0, 0
    r = 0
    number = next_tile(r, total, taken)
    while number < total:
        i_item = number // count  # the longest first, of all requests
        i_batch = number - i_item * count
        q_start, q_stop, kv_start, kv_stop = ends
        q_first, kv_first = 0, 0
        if IS_PACKED:
            q_first, q_len, kv_first, kv_len = request(i_batch, q_starts, kv_starts, 0)
            q_first = q_first.to(gl.int32)
            kv_first = kv_first.to(gl.int32)
            kv_stop = kv_len.to(gl.int32)
            q_stop = kv_stop
            q_start = kv_stop - q_len.to(gl.int32)
        p_item = items + i_item * s_items
        j_first, _, o_first = columns_at(p_item, KEYS)
        if j_first * BLOCK + o_first < kv_stop:
            p_members = members + gl.load(p_item + 1) * s_members
            words, times = told_rows
            own = (words, times, p_members)
            kv = (i_batch, gl.load(p_members), kv_first, kv_start, kv_stop)
            limits = (q_start, q_stop, kv_stop)
            is_stride = gl.load(p_item)
            if HAS_NEAR:  # noqa: SIM102 (what the kernel is compiled for, then what the item is)
                if is_stride == 0:
                    place, phase, turn, tails = walk(
                        keys_of, rows_of, cleared, own, kv_bars, boxes, full, empty, (place, phase, turn, tails),
                        p_item, pattern, rows, kv, limits, q_first, s_sums, s_out, False, False, IS_PACKED, STAGES,
                    )  # fmt: skip
            if HAS_STRIDES:  # noqa: SIM102
                if is_stride != 0:
                    place, phase, turn, tails = walk(
                        keys_of, rows_of, cleared, own, kv_bars, boxes, full, empty, (place, phase, turn, tails),
                        p_item, pattern, rows, kv, limits, q_first, s_sums, s_out, True, not HAS_NEAR, IS_PACKED,
                        STAGES,
                    )  # fmt: skip
        r += 1
        number = next_tile(r, total, taken)
    wait(kv_empty, (turn & 1) ^ 1)
    write(boxes[0], (turn & 1) * BOX, 0)
    barrier()
    arrive(kv_full, count=1)
