"""Parts of an item of dK and dV, as the producer notes them: the edge slots of its query heads, then their far ones."""

from ..rounds import portion, slots_of
from ..row_map import row_map
from ..tiles import BLOCK, IS_TABLE
from .box import noted, write
from .load_items import KEYS
from .names import barrier, gl, gluon
from .notes import (
    BATCH,
    CLASS,
    DONE,
    EDGE,
    FAR,
    FAR_SLOTS,
    FIRST,
    HEAD,
    HEADS,
    IS_EDGE,
    ITEM,
    LOAD_KEYS,
    MEMBER,
    MEMBERS,
    NEXT,
    PLACES,
    Q_ROW,
    ROUND,
    SLOTS,
    SUMS,
    ends_noted,
    note_all,
)
from .row_lists import list_places, note_list
from .tiles import ROWS


@gluon.jit
def kinds_of(tables, zero, IS_STRIDE: gl.constexpr, IS_PACKED: gl.constexpr):
    """Tuples as long as the row map's places and its rule, or the places in a list; their numbers mean nothing."""
    _items, _members, pattern, rows = tables
    if IS_TABLE:
        return list_places(zero, IS_PACKED), ()
    elif IS_STRIDE:
        return (zero, zero, zero, zero, zero), (zero, zero)
    else:
        _, _, places, rule = row_map(pattern, rows, zero, zero, zero, zero, zero, zero)
        return places, rule


@gluon.jit
def note_head(notes, tables, IS_STRIDE: gl.constexpr):
    """Note the next head of an item: its number, and what `rounds.slots_of` says of it."""
    items, members, pattern, rows = tables
    p_member = members + noted(notes, MEMBERS) + 2 + 2 * noted(notes, MEMBER)
    q_start, q_stop, kv_stop = ends_noted(notes)
    head, n_far, n_slots, places, rule = slots_of(
        p_member, items + noted(notes, ITEM), pattern, rows, q_start, q_stop, kv_stop, IS_STRIDE, KEYS
    )
    barrier()  # what was noted of the head before has been read
    write(notes, HEAD, head)
    write(notes, FAR_SLOTS, n_far)
    write(notes, SLOTS, n_slots)
    note_all(notes, PLACES, places)
    note_all(notes, PLACES + len(places), rule)
    barrier()


@gluon.jit
def begin_part(notes, tables, s_sums, IS_STRIDE: gl.constexpr, IS_ALL: gl.constexpr, IS_PACKED: gl.constexpr):
    """Note what is needed of the next part; the first of its slots of 64 rows and the one behind the last. Parts are
    the heads' edge slots, and then their far ones; two rounds in which slots are counted, two in which they are loaded.

    What is noted is read again in each step, so that it holds no registers.
    """
    items, members, _pattern, _rows = tables
    s_lb, s_lh = s_sums
    if IS_TABLE:
        note_list(notes, tables, IS_PACKED)
    else:
        note_head(notes, tables, IS_STRIDE)
    head = noted(notes, HEAD)
    write(notes, CLASS, gl.load(members + noted(notes, MEMBERS) + 3 + 2 * noted(notes, MEMBER)))
    write(notes, SUMS, noted(notes, BATCH) * s_lb + head * s_lh + noted(notes, Q_ROW))
    barrier()
    if IS_TABLE:  # lists have slots of 64 rows
        first = noted(notes, FAR_SLOTS)
        count = noted(notes, SLOTS) - first
    else:
        first = noted(notes, FAR_SLOTS) * BLOCK // ROWS
        count = (noted(notes, SLOTS) * BLOCK + ROWS - 1) // ROWS - first
    if noted(notes, ROUND) & 1 != 0:
        count = first
        first = first * 0
    start, stop = portion(count, items + noted(notes, ITEM), head, IS_ALL)
    barrier()
    return start + first, stop + first


@gluon.jit
def count_part(start, stop, notes):
    """Note the first slot of a part that is to be loaded, `stop` while slots are counted: the last one is loaded first.

    Keys are loaded behind the slots that do not wait for those of the item before. An item without slots has one that
    is not loaded, so that its keys are.
    """
    m, turn = noted(notes, MEMBER), noted(notes, ROUND)
    n = EDGE + (turn & 1)
    if turn < 2:
        write(notes, n, noted(notes, n) + stop - start)
        start = stop
    else:
        total, done = noted(notes, EDGE) + noted(notes, FAR), noted(notes, DONE)
        write(notes, LOAD_KEYS, stop - 1 - gl.maximum(gl.minimum(total, 2) - 1, 0) + done)
        write(notes, DONE, done + gl.maximum(stop - start, 0))
        start = gl.where((turn == 2) & (m == 0) & (total == 0), stop - 1, start)
    write(notes, FIRST, start)
    write(notes, NEXT, stop)
    write(notes, IS_EDGE, (turn & 1) ^ 1)
    is_last = m + 1 == noted(notes, HEADS)
    write(notes, MEMBER, gl.where(is_last, 0, m + 1))
    write(notes, ROUND, gl.where(is_last, turn + 1, turn))
    barrier()
