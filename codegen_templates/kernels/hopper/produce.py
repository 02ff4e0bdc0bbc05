"""The producer of the Hopper forward and of dQ: one warp that hands out tiles and loads their rows, keys and values by
TMA."""

from ..index_map import keeps
from ..tiles import BLOCK, BLOCK_BITS, IS_CAUSAL, IS_TABLE
from .box import ONE_WARP, TILE, tell_tile, write
from .columns import PIECE, SIDE, column_at, entries_of
from .masks import WHOLE, tell_keys
from .names import arrive, barrier, condition, expect, fence_async_shared, gl, gluon, load_box, wait
from .tiles import NOTHING, ROWS, WIDTH, after, request_of, slots_of, tile_place

CHUNK = gl.constexpr(64)  # columns of a box: 128 bytes, the swizzle
CHUNKS = gl.constexpr(WIDTH.value // 64)
BLOCKS = gl.constexpr((1 << SIDE.value) - 1)  # bits of the first rows' blocks
COLUMN = gl.constexpr(sum(1 << SIDE.value * n for n in range(SIDE.value)))  # bits of a slot's first block


@gluon.jit
def next_tile(r, total, taken):
    """The r-th tile of this program; `total` or more: there is none. Where there are more tiles than programs, `taken`
    counts those beyond the first of each, and whoever comes first takes the next."""
    tile = gl.program_id(0)
    if r > 0:
        tile = total
        if total > gl.num_programs(0):
            tile = gl.num_programs(0) + gl.atomic_add(taken, 1)
    return tile


@gluon.jit
def key_row(u, request, pages, PAGE: gl.constexpr):
    """Where a run of keys that begins at position u lies: (request or page, row)."""
    i_batch, kv_first, kv_start = request
    if PAGE:
        page = gl.load(pages + u // PAGE).to(gl.int32)
        row = u % PAGE
    else:
        page = i_batch
        row = kv_first + u - kv_start
    return page, row


@gluon.jit
def load_run(descriptors, buffers, bar, page, i_kv, row, to, STEP: gl.constexpr):
    """Copy a run of keys, of values or of both to the boxes number `to`, `to` + STEP, …: one for 64 columns."""
    for x in gl.static_range(len(descriptors)):
        for c in gl.static_range(CHUNKS):
            load_box(descriptors[x], [page, i_kv, row, c * CHUNK], bar, buffers[x].index(to + c * STEP))


@gluon.jit
def is_run_kept(every, p, i_slot, u, n_slots, rule, span, CONSUMERS: gl.constexpr, RUN: gl.constexpr):
    """Whether a row of the tile keeps one of the keys of run p of an edge slot, from position u on, of which the rows
    keep `every`."""
    t_base, q_start, q_stop, kv_start, kv_stop = span
    is_kept = ((every >> (p * RUN // PIECE)) & COLUMN) != 0
    t_first = gl.maximum(t_base, q_start)
    t_last = gl.minimum(t_base + CONSUMERS * ROWS, q_stop) - 1
    o_u = gl.arange(0, RUN, ONE_WARP)
    j = u >> BLOCK_BITS
    some = keeps(i_slot, t_first >> BLOCK_BITS, t_last >> BLOCK_BITS, j, t_first, t_last, u + o_u, rule)
    if len(some.shape) > 0:  # a rule of tokens: the run may be of a kept block and not be kept
        is_some = (gl.max(some.to(gl.int32), 0) > 0) & (i_slot < n_slots)
        if IS_CAUSAL:
            is_some = is_some & (u <= t_last)
        if IS_TABLE:
            is_kept = is_kept | (is_some & (u >= kv_start))
        else:
            is_kept = is_kept & is_some
    return is_kept & (u < kv_stop)


@gluon.jit
def blocks_apart(n, far, every, places, rule):
    """How many blocks each block of slot n lies behind the one before; 0 where it is not always the same, or where one
    of them is not to be read."""
    probe = keeps(n, n, n, n, n, n, gl.arange(0, ROWS, ONE_WARP), rule)
    is_whole = n < far
    if IS_TABLE or len(probe.shape) == 0:
        by_some = every  # its lowest bits: of which blocks any row keeps something
        for r in gl.static_range(1, SIDE):
            by_some = by_some | (every >> (r * SIDE))
        is_whole = is_whole | ((by_some & BLOCKS) == BLOCKS)
    apart = n * 0 + 1
    if SIDE > 1:
        i_slot = n * SIDE
        j = column_at(i_slot, places)
        apart = column_at(i_slot + 1, places) - j
        for c in gl.static_range(2, SIDE):
            apart = gl.where(column_at(i_slot + c, places) == j + c * apart, apart, 0)
    return gl.where(is_whole, apart, 0)


@gluon.jit
def load_slot(descriptors, buffers, bar, n, every, n_slots, far, places, rule, span, place, i_kv, request, pages,
              periods, CONSUMERS: gl.constexpr, PAGE: gl.constexpr, RUN: gl.constexpr,
              EVERY: gl.constexpr):  # fmt: skip
    """Copy the keys, the values or both of slot n to this place of the ring: in one box where they are neighbours or
    EVERY blocks apart. `every`: what any row keeps of it. Runs of the edge that no row keeps are not read: zeros take
    their place."""
    ones, runs, fars = descriptors
    one_rooms, run_rooms, far_rooms = buffers
    RUNS: gl.constexpr = ROWS // RUN
    expect(bar, len(ones) * ROWS * WIDTH * 2)
    u = column_at(n * ROWS // BLOCK, places) * BLOCK + n * ROWS % BLOCK
    if RUNS == 1:
        page = request[0]
        row = u * 0 + NOTHING
        if every != 0:
            page, row = key_row(u, request, pages, PAGE)
        load_run(ones, one_rooms, bar, page, i_kv, row, place * CHUNKS, 1)
    else:
        apart = blocks_apart(n, far, every, places, rule)
        is_one = apart == 1
        if PAGE:
            is_one = is_one & (u % ROWS + PAGE % ROWS == 0)
        is_far = apart < 0
        if EVERY:
            row = request[1] + u - request[2]
            period = row // (EVERY * BLOCK)
            inside = row - period * (EVERY * BLOCK)
            is_far = (apart == EVERY) & (inside <= (EVERY - 1) * BLOCK) & (period + SIDE <= periods)
        if is_one:
            page, row = key_row(u, request, pages, PAGE)
            load_run(ones, one_rooms, bar, page, i_kv, row, place * CHUNKS, 1)
        elif EVERY and is_far:
            for x in gl.static_range(len(fars)):
                for c in gl.static_range(CHUNKS):
                    to = far_rooms[x].index(place * CHUNKS + c)
                    load_box(fars[x], [request[0], i_kv, period, inside, c * CHUNK], bar, to)
        else:
            for p in range(RUNS):
                i_slot = (n * ROWS + p * RUN) // BLOCK
                u = column_at(i_slot, places) * BLOCK + (n * ROWS + p * RUN) % BLOCK
                page = request[0]
                row = u * 0 + NOTHING
                if (n < far) | is_run_kept(every, p, i_slot, u, n_slots, rule, span, CONSUMERS, RUN):
                    page, row = key_row(u, request, pages, PAGE)
                load_run(runs, run_rooms, bar, page, i_kv, row, place * (CHUNKS * RUNS) + p, RUNS)


@gluon.jit
def rows_behind(n, n_slots, places, kv_stop):
    """The rows of slot n, from and to, that lie in a column that it holds but behind the last key: foreign numbers."""
    low, high = kv_stop * 0, kv_stop * 0
    if BLOCK >= ROWS:
        i_slot = n // (BLOCK // ROWS)
        row = kv_stop - (column_at(i_slot, places) * BLOCK + n % (BLOCK // ROWS) * ROWS)
        is_inside = (i_slot < n_slots) & (row > 0) & (row < ROWS)
        low, high = gl.where(is_inside, row, 0), gl.where(is_inside, ROWS, 0)
    else:
        for p in gl.static_range(ROWS // BLOCK):
            i_slot = n * (ROWS // BLOCK) + p
            row = kv_stop - column_at(i_slot, places) * BLOCK
            is_inside = (i_slot < n_slots) & (row > 0) & (row < BLOCK)
            low, high = gl.where(is_inside, row + p * BLOCK, low), gl.where(is_inside, (p + 1) * BLOCK, high)
    return low, high


@gluon.jit
def clear_rows(slot_rows, place, low, high, dtype: gl.constexpr):
    """Write zeros over these rows of a slot, of what weights are multiplied with: a weight of 0 does not undo what is
    no number."""
    for row in range(low, high):
        for c in gl.static_range(CHUNKS):
            zero = gl.zeros([CHUNK], dtype, gl.BlockedLayout([2], [32], [1], [0]))
            slot_rows.index((place * CHUNKS + c) * ROWS + row).store(zero)
    fence_async_shared()
    barrier()


@gluon.jit
def load_cleared(descriptors, buffers, slot_rows, full, tails, n, every, n_slots, far, places, rule, span, place, i_kv,
                 request, pages, periods, CONSUMERS: gl.constexpr, PAGE: gl.constexpr, RUN: gl.constexpr,
                 EVERY: gl.constexpr, IS_PACKED: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    """Copy a slot as `load_slot` does, and clear rows behind a packed request's last key; the slots cleared so far."""
    bar = place
    low, high = 0 * n, 0 * n
    if IS_PACKED and n >= far:
        low, high = rows_behind(n, n_slots, places, span[4])
        bar = gl.where(low < high, STAGES, place)
    load_slot(descriptors, buffers, full.index(bar), n, every, n_slots, far, places, rule, span, place, i_kv, request,
              pages, periods, CONSUMERS, PAGE, RUN, EVERY)  # fmt: skip
    if IS_PACKED and low < high:
        wait(full.index(STAGES), tails & 1)
        clear_rows(slot_rows, place, low, high, slot_rows.dtype)
        arrive(full.index(place), count=1)
        tails += 1
    return tails


@gluon.jit
def produce(inputs, descriptors, buffers, slot_rows, rooms, full, empty, q_bars, told_of, taken, tiles, total, heads,
            groups, starts, ends, pattern, columns, pages, s_pages, periods, CONSUMERS: gl.constexpr,
            PAGE: gl.constexpr, RUN: gl.constexpr, EVERY: gl.constexpr, IS_PACKED: gl.constexpr,
            STAGES: gl.constexpr):  # fmt: skip
    """`inputs`: descriptors of what a tile has of its rows, the queries and whatever else, copied to `rooms`.
    `slot_rows`: what the weights of a slot are multiplied with, row by row."""
    q_full, q_empty = q_bars
    box, words, keys = told_of
    place, phase = 0, 0
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
                wait(empty.index(place), phase ^ 1)
                every = n * 0 + WHOLE
                if (n >= far) | (i == 0):
                    every = tell_keys(words, keys, place, n, n_slots, at, rule, span, CONSUMERS)
                    barrier()
                tails = load_cleared(descriptors, buffers, slot_rows, full, tails, n, every, n_slots, far, at, rule,
                                     span, place, i_kv, request, own, periods, CONSUMERS, PAGE, RUN, EVERY, IS_PACKED,
                                     STAGES)  # fmt: skip
                place, phase = after(place, phase, STAGES)
                if i == 0:
                    wait(q_empty, (turn & 1) ^ 1)
                    row = first[0] + t_base - q_from
                    rows = (request[0], i_head, row, t_base, q_from, q_stop)
                    tell_tile(box, turn & 1, (n_all, far), rows, i_class)
                    barrier()
                    expect(q_full, len(inputs) * CONSUMERS * ROWS * WIDTH * 2)
                    for x in gl.static_range(len(inputs)):
                        for w in gl.static_range(CONSUMERS):
                            for c in gl.static_range(CHUNKS):
                                load_box(inputs[x], [request[0], i_head, row + w * ROWS, c * CHUNK], q_full,
                                         rooms[x].index(w * CHUNKS + c))  # fmt: skip
                    turn += 1
        r += 1
        tile = next_tile(r, total, taken)
    wait(q_empty, (turn & 1) ^ 1)
    write(box, (turn & 1) * TILE, 0)
    barrier()
    arrive(q_full, count=1)
