"""Rows of an item where the pattern is a table: slots that the host has listed, with what each consumer keeps of them.

The record of a tile of 128 keys says where its list begins, how many of its slots are edge ones and how many there are.
The list has the slots' numbers, edge ones first, each kind sorted, and then the words of either consumer, which the
host has made too (`slot_lists.py`). Where a packed request's queries begin and end is known here alone: it has a part
of the list.
"""

from ..index_map import search
from ..row_map import CLASS_INTS
from ..tiles import BLOCK
from .box import ONE_WARP, noted, write
from .masks import FINE
from .names import barrier, gl, gluon
from .notes import (
    CLASS,
    FAR_SLOTS,
    FIRST_COLUMN,
    FIRST_KEY,
    HEAD,
    KV_START,
    LIST,
    LISTED,
    MEMBER,
    MEMBERS,
    PLACES,
    SLOT,
    SLOTS,
    TWO,
    all_noted,
    ends_noted,
    note_all,
)
from .row_masks import ABSENT, LANES, WORDS
from .tiles import ROWS

RECORD = gl.constexpr(3 + len(CLASS_INTS[0]))  # numbers of it: behind those of the list the integers of the class
EXACT = gl.constexpr(1 << 21)  # of a word: tokens keep a part of a block


@gluon.jit
def list_places(zero, IS_PACKED: gl.constexpr):
    """A tuple as long as what `part_of` gives."""
    if IS_PACKED:
        return (zero, zero, zero, zero, zero, zero, zero)
    else:
        return (zero, zero, zero)


@gluon.jit
def part_of(p_list, n_edge, n_all, notes, IS_PACKED: gl.constexpr):
    """(far, all, places) of a list's slots that have queries: how many are far ones, all of whose rows are queries, and
    how many there are; places: for zone n, first_n is its first place in the list less its first slot, stop_n the slot
    behind it."""
    if IS_PACKED:
        q_start, q_stop, _kv_stop = ends_noted(notes)
        i_first, i_stop = q_start >> 6, (q_stop + ROWS - 1) >> 6  # rounded down, also below 0
        i_whole, i_full = (q_start + ROWS - 1) >> 6, q_stop >> 6
        first = search(p_list, n_edge, n_all, i_first, False)
        low = search(p_list, first, n_all, i_whole, False)
        high = search(p_list, low, n_all, gl.maximum(i_whole, i_full), True)
        stop = search(p_list, high, n_all, i_stop, True)
        edge_first = search(p_list, n_edge * 0, n_edge, i_first, False)
        edge_stop = search(p_list, edge_first, n_edge, i_stop, True)
        stop_0 = high - low
        stop_1 = stop_0 + low - first
        stop_2 = stop_1 + stop - high
        places = (low, stop_0, first - stop_0, stop_1, high - stop_1, stop_2, edge_first - stop_2)
        return stop_0, stop_2 + edge_stop - edge_first, places
    else:
        return n_all - n_edge, n_all, (n_edge, n_all - n_edge, n_edge - n_all)


@gluon.jit
def place_of(n, places):
    """The place in the list of slot n."""
    x = places[0] + n
    for z in gl.static_range(len(places) // 2):
        x = gl.where(n < places[1 + 2 * z], x, places[2 + 2 * z] + n)
    return x


@gluon.jit
def note_list(notes, tables, IS_PACKED: gl.constexpr):
    """Note the next head of an item and its list."""
    _items, members, pattern, rows = tables
    p_member = members + noted(notes, MEMBERS) + 2 + 2 * noted(notes, MEMBER)
    tile = (noted(notes, FIRST_COLUMN) * BLOCK + noted(notes, FIRST_KEY) - noted(notes, KV_START)) // (2 * ROWS)
    head = gl.load(p_member)
    p_record = pattern + gl.load(p_member + 1) + tile * RECORD
    start, n_edge, n_all = gl.load(p_record), gl.load(p_record + 1), gl.load(p_record + 2)
    n_far, n_slots, places = part_of(rows + start, n_edge, n_all, notes, IS_PACKED)
    barrier()  # what was noted of the head before has been read
    write(notes, HEAD, head)
    write(notes, LIST, start)
    write(notes, LISTED, n_all)
    write(notes, FAR_SLOTS, n_far)
    write(notes, SLOTS, n_slots)
    note_all(notes, PLACES, places)
    barrier()


@gluon.jit
def note_slot(notes, rows, n, like):
    """Note the position of a slot's first row."""
    t = gl.load(rows + noted(notes, LIST) + place_of(n, all_noted(notes, PLACES, like))) * ROWS
    barrier()  # that of the slot before has been read
    write(notes, SLOT, t)
    barrier()


@gluon.jit
def tell_slot(words, lanes, place, rows, n, notes, like):
    """Leave what consumers need to know of an edge slot, as `row_masks.tell_rows` does."""
    q_start, q_stop, kv_stop = ends_noted(notes)
    for half in range(noted(notes, TWO)):  # a row for each lane
        t = noted(notes, SLOT) + half * LANES + gl.arange(0, LANES, ONE_WARP)
        is_there = (t >= q_start) & (t < q_stop)
        lanes.index(place * (ROWS // LANES) + half).store(gl.where(is_there, t, ABSENT))
    is_cut = (noted(notes, SLOT) < q_start) | (noted(notes, SLOT) + ROWS > q_stop)
    is_exact = place * 0
    p_word = rows + noted(notes, LIST) + place_of(n, all_noted(notes, PLACES, like))
    for w in range(noted(notes, TWO)):
        p_word += noted(notes, LISTED)
        u = noted(notes, FIRST_COLUMN) * BLOCK + noted(notes, FIRST_KEY) + w * ROWS
        kept = gl.where(u < kv_stop, gl.load(p_word), 0)
        is_exact = is_exact | (kept & EXACT)
        kept = gl.where(is_cut & (kept != 0), kept | FINE, kept)
        write(words, place * WORDS + w, kept)
    write(words, place * WORDS + 2, noted(notes, CLASS))
    write(words, place * WORDS + 3, is_exact)
