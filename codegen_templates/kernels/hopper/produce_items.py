"""The producer of dK and dV: one warp that hands out items, walks the rows that read their keys, and loads both by TMA.

An item is one of `backward_item.py`: 128 keys and the rows of one kind that read them, of one query head after the
other. First come all heads' edge slots, of which it is told what they keep, then the far ones, which keep every key.
The warp has few registers, so what it knows of an item and a head stays in its notes.
"""

from ..rounds import columns_at
from ..tiles import BLOCK, IS_TABLE, late_zero, request
from .box import noted, write
from .item_parts import begin_part, count_part, kinds_of
from .load_items import BOX, KEYS, clear_foreign, is_cut, load_keys, load_rows
from .names import arrive, barrier, condition, gl, gluon, wait
from .notes import (
    BATCH,
    COUNT,
    DONE,
    EDGE,
    EVERY,
    FAR,
    FIRST,
    FIRST_COLUMN,
    FIRST_KEY,
    HEADS,
    IS_EDGE,
    ITEM,
    KV_HEAD,
    KV_ROW,
    KV_START,
    KV_STOP,
    LEAD,
    LOAD_KEYS,
    MEMBER,
    MEMBERS,
    NEXT,
    PROGRAMS,
    Q_ROW,
    Q_START,
    Q_STOP,
    REQUEST,
    ROUND,
    TAILS,
    TWO,
    WHICH,
)
from .produce import next_tile
from .row_lists import note_slot, tell_slot
from .row_masks import tell_rows
from .tiles import after


@gluon.jit
def walk(keys_of, rows_of, cleared, words, kv_bars, box, lanes, full, empty, state, notes, tables, s_sums,
         IS_STRIDE: gl.constexpr, IS_ALL: gl.constexpr, IS_PACKED: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    """Load the keys of one item and all slots of its rows."""
    place, phase = state
    qrows, grows = cleared
    items = tables[0]
    like = kinds_of(tables, place, IS_STRIDE, IS_PACKED)
    write(notes, MEMBER, 0)
    write(notes, ROUND, 0)
    write(notes, EDGE, 0)
    write(notes, FAR, 0)
    write(notes, DONE, 0)
    barrier()
    while noted(notes, ROUND) < 4:
        first, stop = begin_part(notes, tables, s_sums, IS_STRIDE, IS_ALL, IS_PACKED)
        count_part(first, stop, notes)
        # the last slots first: items whose rows end alike read the same ones at a time
        while noted(notes, NEXT) > noted(notes, FIRST):
            n = noted(notes, NEXT) - 1
            barrier()
            write(notes, NEXT, n)
            barrier()
            if noted(notes, EDGE) + noted(notes, FAR) > 0:
                wait(empty.index(place), phase ^ 1)
                bar = place
                is_foreign = n < 0
                if IS_TABLE:
                    note_slot(notes, tables[3], n, like[0])
                if noted(notes, IS_EDGE) != 0:
                    if IS_TABLE:
                        tell_slot(words, lanes, place, tables[3], n, notes, like[0])
                    else:
                        tell_rows(words, lanes, place, n, notes, like, IS_STRIDE)
                    barrier()
                    if IS_PACKED:
                        is_foreign = is_cut(n, notes, like, IS_STRIDE)
                        bar = gl.where(is_foreign, STAGES, place)
                load_rows(rows_of, full.index(bar), place, n, notes, like, IS_STRIDE)
                if IS_PACKED:  # noqa: SIM102 (what the kernel is compiled for, then what the slot is)
                    if is_foreign:
                        wait(full.index(STAGES), noted(notes, TAILS) & 1)
                        clear_foreign(qrows, grows, place, n, notes, like, IS_STRIDE)
                        arrive(full.index(place), count=1)
                        write(notes, TAILS, noted(notes, TAILS) + 1)
                place, phase = after(place, phase, STAGES)
            if n == noted(notes, LOAD_KEYS):
                load_keys(keys_of, kv_bars, box, items, notes)
    barrier()
    write(notes, WHICH, noted(notes, WHICH) ^ 1)
    barrier()
    return place, phase


@gluon.jit
def begin_item(number, notes, tables, starts, ends, sizes, IS_PACKED: gl.constexpr):
    """Note what there is to know of an item and its request, but for its heads; whether it has keys.

    The first items are taken of one request after the other, the others of all requests at a time.
    """
    items, members, _pattern, _rows = tables
    q_starts, kv_starts = starts
    s_items, s_members = sizes
    is_lead = number < noted(notes, LEAD) * noted(notes, COUNT)
    of_each = gl.where(is_lead, noted(notes, LEAD), noted(notes, COUNT))
    whole = number // of_each
    rest = number - whole * of_each
    i_item = gl.where(is_lead, rest, whole)
    i_batch = gl.where(is_lead, whole, rest)
    q_start, q_stop, kv_start, kv_stop = ends
    q_first, kv_first = late_zero(number), late_zero(number)
    barrier()  # what was noted of the item before has been read
    if IS_PACKED:
        q_first, q_len, kv_first, kv_len = request(i_batch, q_starts, kv_starts, 0)
        q_first = q_first.to(gl.int32)
        kv_first = kv_first.to(gl.int32)
        kv_stop = kv_len.to(gl.int32)
        q_stop = kv_stop
        q_start = kv_stop - q_len.to(gl.int32)
        write(notes, REQUEST, 0)
    else:
        write(notes, REQUEST, i_batch)
    write(notes, BATCH, i_batch)
    write(notes, Q_START, q_start)
    write(notes, Q_STOP, q_stop)
    write(notes, KV_START, kv_start)
    write(notes, KV_STOP, kv_stop)
    write(notes, Q_ROW, q_first - q_start)
    write(notes, KV_ROW, kv_first - kv_start)
    barrier()  # so that not all is loaded at once: registers are few
    p_item = items + i_item * s_items
    o_members = gl.load(p_item + 1) * s_members
    write(notes, ITEM, i_item * s_items)
    write(notes, MEMBERS, o_members)
    write(notes, KV_HEAD, gl.load(members + o_members))
    write(notes, HEADS, gl.load(members + o_members + 1))
    barrier()
    j_first, every, o_first = columns_at(p_item, KEYS)
    write(notes, FIRST_COLUMN, j_first)
    write(notes, EVERY, every)
    write(notes, FIRST_KEY, o_first)
    barrier()
    return j_first * BLOCK + o_first < kv_stop


@gluon.jit
def produce_items(keys_of, rows_of, cleared, words, kv_bars, box, lanes, notes, full, empty, taken, total, lead,
                  count, tables, starts, ends, s_sums, sizes, HAS_NEAR: gl.constexpr, HAS_STRIDES: gl.constexpr,
                  IS_PACKED: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    """`keys_of` and `rows_of`: descriptors and what they fill, as `load_keys` and `load_rows` take them. `cleared`: the
    same slots as rows; where requests are packed, rows of none are set to zero in them."""
    kv_full, kv_empty = kv_bars
    items = tables[0]
    place, phase = 0, 0
    write(notes, COUNT, count)
    write(notes, LEAD, lead)
    write(notes, PROGRAMS, gl.num_programs(0))
    write(notes, TWO, 2)
    write(notes, WHICH, 0)
    write(notes, TAILS, 0)
    barrier()
    number = next_tile(0, total, taken)
    while condition(number < total, disable_licm=True):
        if begin_item(number, notes, tables, starts, ends, sizes, IS_PACKED):
            is_stride = gl.load(items + noted(notes, ITEM))
            if HAS_NEAR:  # noqa: SIM102 (what the kernel is compiled for, then what the item is)
                if is_stride == 0:
                    place, phase = walk(
                        keys_of, rows_of, cleared, words, kv_bars, box, lanes, full, empty, (place, phase),
                        notes, tables, s_sums, False, False, IS_PACKED, STAGES,
                    )  # fmt: skip
            if HAS_STRIDES:  # noqa: SIM102
                if is_stride != 0:
                    place, phase = walk(
                        keys_of, rows_of, cleared, words, kv_bars, box, lanes, full, empty, (place, phase),
                        notes, tables, s_sums, True, not HAS_NEAR, IS_PACKED, STAGES,
                    )  # fmt: skip
        number = total
        if total > noted(notes, PROGRAMS):
            number = noted(notes, PROGRAMS) + gl.atomic_add(taken, 1)
    wait(kv_empty, noted(notes, WHICH) ^ 1)
    write(box, noted(notes, WHICH) * BOX, 0)
    barrier()
    arrive(kv_full, count=1)
