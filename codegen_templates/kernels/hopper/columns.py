"""The columns of a slot of 64 keys: as the index map works them out, or from a table that was made for tiles of rows.

An entry of such a table has a column above BITS bits, and below them a bit for each PIECE rows of the tile, the first
rows' lowest: whether they keep the column whole, but for causality. A slot's entries are loaded while the slot before
it is, since what follows from them would else wait for memory.
"""

from ..index_map import column
from ..tiles import BLOCK, IS_TABLE
from .names import gl, gluon
from .tiles import BITS, ROWS

SIDE = gl.constexpr(max(ROWS.value // BLOCK.value, 1))  # columns of a slot, and rows of blocks of a consumer
PIECE = gl.constexpr(min(BLOCK.value, ROWS.value))  # tokens of a slot that are neighbours in any case


@gluon.jit
def entries_of(n, places):
    """The entries of slot n of a table, one for each of its columns; of slot 0 where n is below 0."""
    first = gl.maximum(n, 0) * ROWS // BLOCK
    entries = (column(first, places, False),)
    for c in gl.static_range(1, SIDE):
        entries += (column(first + c, places, False),)
    return entries


@gluon.jit
def entry_at(i_slot, entries):
    """Of a slot's entries, those in these places of the index map."""
    entry = entries[0]
    for c in gl.static_range(1, SIDE):
        entry = gl.where((i_slot & (SIDE - 1)) == c, entries[c], entry)
    return entry


@gluon.jit
def column_at(i_slot, places):
    """The columns in these places of the index map. `places`: what it needs to find them; of a table the entries of the
    slot that they are in."""
    if IS_TABLE:
        return entry_at(i_slot, places) >> BITS
    else:
        return column(i_slot, places, False)
