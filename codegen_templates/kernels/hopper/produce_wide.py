"""The producer of the Hopper forward for wide heads: `produce.py`, with a ring for keys and one for values, and a place
for each consumer's queries."""

from ..tiles import IS_TABLE
from .box import TILE, tell_tile, write
from .columns import entries_of
from .masks import WHOLE, tell_keys
from .names import arrive, barrier, condition, expect, gl, gluon, load_box, wait
from .produce import CHUNK, CHUNKS, load_cleared, load_slot, next_tile
from .tiles import ROWS, WIDTH, after, request_of, slots_of, tile_place

# What is told of tiles: a consumer may still store the one before last when the other one's queries are free.
BOXES = gl.constexpr(3)


@gluon.jit
def produce_wide(q, of_keys, of_values, vrows, qbuf, rings, q_bars, told_of, taken, tiles, total, heads, groups, starts,
                 ends, pattern, columns, pages, s_pages, periods, CONSUMERS: gl.constexpr, PAGE: gl.constexpr,
                 RUN: gl.constexpr, EVERY: gl.constexpr, IS_PACKED: gl.constexpr, K_STAGES: gl.constexpr,
                 V_STAGES: gl.constexpr):  # fmt: skip
    """`of_keys` and `of_values`: descriptors, and the buffers that they fill."""
    k_full, k_empty, v_full, v_empty = rings
    q_full, q_empty = q_bars
    box, words, keys = told_of
    k_place, k_phase, v_place, v_phase = 0, 0, 0, 0
    turn, tails = 0, 0  # tiles told so far, slots with rows behind the last key
    r = 0
    tile = next_tile(r, total, taken)
    while condition(tile < total, disable_licm=True):
        which, first, span = tile_place(tile, tiles, heads, groups, starts, ends, CONSUMERS, PAGE, IS_PACKED)
        t_base, q_from, q_stop, kv_from, _ = span
        i_batch, i_head, i_kv, i_class = which
        if t_base < q_stop:
            n_slots, places, rule, n_all, far = slots_of(pattern + i_class, columns, span, CONSUMERS)
            request, own = request_of(i_batch, first[1], kv_from, pages, s_pages, PAGE, IS_PACKED)
            if IS_TABLE:
                ahead = entries_of(n_all - 1, places)
            for i in range(n_all):
                n = n_all - 1 - i
                at = places
                if IS_TABLE:
                    at = ahead
                    ahead = entries_of(n - 1, places)
                wait(k_empty.index(k_place), k_phase ^ 1)
                every = n * 0 + WHOLE
                if (n >= far) | (i == 0):
                    every = tell_keys(words, keys, k_place, n, n_slots, at, rule, span, CONSUMERS)
                    barrier()
                load_slot(of_keys[0], of_keys[1], k_full.index(k_place), n, every, n_slots, far, at, rule, span,
                          k_place, i_kv, request, own, periods, CONSUMERS, PAGE, RUN, EVERY)  # fmt: skip
                k_place, k_phase = after(k_place, k_phase, K_STAGES)
                if i == 0:
                    row = first[0] + t_base - q_from
                    for w in gl.static_range(CONSUMERS):
                        wait(q_empty.index(w), (turn & 1) ^ 1)
                        if w == 0:
                            rows = (request[0], i_head, row, t_base, q_from, q_stop)
                            tell_tile(box, turn % BOXES, (n_all, far), rows, i_class)
                            barrier()
                        expect(q_full.index(w), ROWS * WIDTH * 2)
                        for c in gl.static_range(CHUNKS):
                            load_box(q, [request[0], i_head, row + w * ROWS, c * CHUNK], q_full.index(w),
                                     qbuf.index(w * CHUNKS + c))  # fmt: skip
                    turn += 1
                wait(v_empty.index(v_place), v_phase ^ 1)
                tails = load_cleared(of_values[0], of_values[1], vrows, v_full, tails, n, every, n_slots, far, at, rule,
                                     span, v_place, i_kv, request, own, periods, CONSUMERS, PAGE, RUN, EVERY, IS_PACKED,
                                     V_STAGES)  # fmt: skip
                v_place, v_phase = after(v_place, v_phase, V_STAGES)
        r += 1
        tile = next_tile(r, total, taken)
    for w in gl.static_range(CONSUMERS):
        wait(q_empty.index(w), (turn & 1) ^ 1)
    write(box, turn % BOXES * TILE, 0)
    barrier()
    for w in gl.static_range(CONSUMERS):
        arrive(q_full.index(w), count=1)
