"""Numbers that the producer of dK and dV leaves in shared memory for itself: it has 24 registers.

Of the request and the item first, then of the part of them whose rows are being loaded.
"""

from .box import noted, write
from .names import gl, gluon

NOTES = gl.constexpr(256)  # numbers there is room for

COUNT = gl.constexpr(0)  # requests
PROGRAMS = gl.constexpr(1)
TWO = gl.constexpr(2)  # 2, which the compiler does not know: it unrolls no loop up to it
WHICH = gl.constexpr(3)  # of the two places for what consumers are told of an item: they take turns
TAILS = gl.constexpr(4)  # slots so far with rows of other sequences
LEAD = gl.constexpr(5)  # items that are taken of one request after the other
# of the request
Q_START = gl.constexpr(6)  # the position of the first query, and behind the last
Q_STOP = gl.constexpr(7)
KV_START = gl.constexpr(8)
KV_STOP = gl.constexpr(9)
Q_ROW = gl.constexpr(10)  # the row of position 0 in q and in k
KV_ROW = gl.constexpr(11)
BATCH = gl.constexpr(12)
REQUEST = gl.constexpr(13)  # its number in descriptors
# of the item
ITEM = gl.constexpr(14)  # where it and its members stand in their arrays
MEMBERS = gl.constexpr(15)
HEADS = gl.constexpr(16)
KV_HEAD = gl.constexpr(17)
FIRST_COLUMN = gl.constexpr(18)  # as `rounds.columns_at` says them
EVERY = gl.constexpr(19)
FIRST_KEY = gl.constexpr(20)
EDGE = gl.constexpr(21)  # its edge slots, its far ones, those of the parts before
FAR = gl.constexpr(22)
DONE = gl.constexpr(23)
MEMBER = gl.constexpr(24)  # of the item's heads that whose part begins next, and the round: see `begin_part`
ROUND = gl.constexpr(25)
# of the part
IS_EDGE = gl.constexpr(26)
HEAD = gl.constexpr(27)
CLASS = gl.constexpr(28)  # the head's class's place in the pattern
SUMS = gl.constexpr(29)  # the place of position 0 in LSE and delta
FAR_SLOTS = gl.constexpr(30)  # of its rows of blocks, the far ones, and all
SLOTS = gl.constexpr(31)
FIRST = gl.constexpr(32)  # the first of its slots of 64 rows, and the one behind the next: the last is loaded first
NEXT = gl.constexpr(33)
LOAD_KEYS = gl.constexpr(34)  # the slot behind which the item's keys are loaded
LIST = gl.constexpr(35)  # where its list of slots begins and how many are in it, if the pattern is a table
LISTED = gl.constexpr(36)
SLOT = gl.constexpr(37)  # the position of a listed slot's first row
PLACES = gl.constexpr(38)  # what the row map needs, and behind it the rule


@gluon.jit
def note_all(notes, first, numbers):
    """Leave several numbers from place `first` on."""
    gl.static_assert(first + len(numbers) <= NOTES)
    for i in gl.static_range(len(numbers)):
        write(notes, first + i, numbers[i])


@gluon.jit
def all_noted(notes, first, like):
    """As many numbers as `like` has, from place `first` on."""
    numbers = ()
    for i in gl.static_range(len(like)):
        numbers = numbers + (noted(notes, first + i),)  # noqa: RUF005 (what Triton reads)
    return numbers


@gluon.jit
def item_noted(notes):
    """The item's columns, as `rounds.columns_at` says them."""
    return noted(notes, FIRST_COLUMN), noted(notes, EVERY), noted(notes, FIRST_KEY)


@gluon.jit
def ends_noted(notes):
    """The positions of the first query, behind the last, and behind the last key."""
    return noted(notes, Q_START), noted(notes, Q_STOP), noted(notes, KV_STOP)


@gluon.jit
def rule_noted(notes, like, IS_STRIDE: gl.constexpr):
    """The numbers of the head's rule, read from the notes. `like`: tuples as long as the row map's places and its rule.
    IS_STRIDE must be given, since Triton 3.6 names a compiled function by how many numbers it takes: without it, the
    function for one kind of item would be called for another kind with as many."""
    places, rule = like
    return all_noted(notes, PLACES + len(places), rule)
