"""Numbers that a producer leaves in shared memory for its consumers, before it arrives at the barrier they wait at."""

from .names import gl, gluon

ONE_WARP = gl.constexpr(gl.BlockedLayout([1], [32], [1], [0]))  # of vectors in the producer
FOUR_WARPS = gl.constexpr(gl.BlockedLayout([1], [32], [4], [0]))
TILE = gl.constexpr(10)  # numbers that are left of a tile of rows, twice: the tile before may not have been stored


@gluon.jit
def write(box, n, number):
    """Leave a whole number at place n."""
    box.index(n).store(gl.full([1], number, gl.int32, ONE_WARP))


@gluon.jit
def told(box, n):
    """One of the numbers that the producer left, once its barrier has turned."""
    return gl.max(box.index(n).load(FOUR_WARPS), 0)


@gluon.jit
def tell_tile(box, own, slots, rows, i_class):
    """Leave what the consumers need to know of a tile: slots, all and far ones; where its rows are, as `rows_told` says
    it; the class's place in the pattern."""
    n_all, far = slots
    i_batch, i_head, row, t_base, q_start, q_stop = rows
    write(box, own * TILE, 1)
    write(box, own * TILE + 1, n_all)
    write(box, own * TILE + 2, far)
    write(box, own * TILE + 3, i_batch)
    write(box, own * TILE + 4, i_head)
    write(box, own * TILE + 5, row)
    write(box, own * TILE + 6, t_base)
    write(box, own * TILE + 7, q_start)
    write(box, own * TILE + 8, q_stop)
    write(box, own * TILE + 9, i_class)


@gluon.jit
def rows_told(box, own):
    """(request, 0 where they are packed; head; the tile's first row and position; the queries' first position and last
    + 1)."""
    n = own * TILE
    return told(box, n + 3), told(box, n + 4), told(box, n + 5), told(box, n + 6), told(box, n + 7), told(box, n + 8)


@gluon.jit
def noted(notes, n):
    """One of the numbers that the producer left for itself."""
    return gl.max(notes.index(n).load(ONE_WARP), 0)
