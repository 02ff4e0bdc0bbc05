"""Shared memory of the Hopper kernels: rooms that TMA fills and products read, barriers, and numbers to be told."""

from .box import TILE
from .columns import PIECE, SIDE
from .names import BARRIER, gl, gluon, init_barrier, reinterpret
from .produce import CHUNK, CHUNKS
from .row_masks import LANES
from .tiles import ROWS, WIDTH

PLAIN = gl.constexpr(gl.SwizzledSharedLayout(1, 1, 1, [0]))


@gluon.jit
def rooms(dtype: gl.constexpr, COUNT: gl.constexpr, RUN: gl.constexpr):
    """Room for COUNT times 64 rows, seen in five ways: as boxes of 64 columns and 64 rows, of RUN rows, or of PIECE
    rows of each of SIDE periods; as operands of products [COUNT, 64, WIDTH]; as rows of 64 numbers."""
    boxed: gl.constexpr = gl.NVMMASharedLayout(128, 16, rank=4)
    deep: gl.constexpr = gl.NVMMASharedLayout(128, 16, rank=5)
    flat: gl.constexpr = gl.NVMMASharedLayout(128, 16, rank=2)
    boxes = gl.allocate_shared_memory(dtype, [COUNT * CHUNKS, 1, 1, ROWS, CHUNK], boxed)
    runs = reinterpret(boxes, dtype, [COUNT * CHUNKS * (ROWS // RUN), 1, 1, RUN, CHUNK], boxed)
    fars = reinterpret(boxes, dtype, [COUNT * CHUNKS, 1, 1, SIDE, PIECE, CHUNK], deep)
    view = reinterpret(boxes, dtype, [COUNT, ROWS, WIDTH], flat)
    rows = reinterpret(boxes, dtype, [COUNT * CHUNKS * ROWS, CHUNK], PLAIN)
    return boxes, runs, fars, view, rows


@gluon.jit
def barriers(COUNT: gl.constexpr, ARRIVALS: gl.constexpr):
    """Barriers that turn after so many arrivals, once a fence and a barrier of the program have followed."""
    bars = gl.allocate_shared_memory(gl.int64, [COUNT, 1], BARRIER)
    for i in gl.static_range(COUNT):
        init_barrier(bars.index(i), count=ARRIVALS)
    return bars


@gluon.jit
def numbers(COUNT: gl.constexpr, LENGTH: gl.constexpr):
    """Whole numbers in shared memory. [COUNT, LENGTH]"""
    return gl.allocate_shared_memory(gl.int32, [COUNT, LENGTH], PLAIN)


@gluon.jit
def pairs(dtype: gl.constexpr, COUNT: gl.constexpr, RUN: gl.constexpr):
    """Two such rooms: of keys and values, or of queries and gradients of outputs. Each of the five ways of both."""
    xbuf, xruns, xfars, xview, xrows = rooms(dtype, COUNT, RUN)
    ybuf, yruns, yfars, yview, yrows = rooms(dtype, COUNT, RUN)
    return (xbuf, ybuf), (xruns, yruns), (xfars, yfars), (xview, yview), (xrows, yrows)


@gluon.jit
def ring_of(dtype: gl.constexpr, STAGES: gl.constexpr, RUN: gl.constexpr, CONSUMERS: gl.constexpr):
    """A ring of slots of keys and values: what TMA fills, in boxes of each kind; what consumers need (operands, full
    and empty barriers); the rows of keys and those of values. The last full barrier is the producer's own."""
    bufs, runs, fars, views, rows = pairs(dtype, STAGES, RUN)
    ring = (views[0], views[1], barriers(STAGES + 1, 1), barriers(STAGES, CONSUMERS))
    return (bufs, runs, fars), ring, rows


@gluon.jit
def bars_of_items(STAGES: gl.constexpr, OWN: gl.constexpr):
    """For two consumers: barriers of full slots, of which the last OWN are the producer's own, and of empty ones; and
    those of an item's keys and values, full and empty."""
    full, empty = barriers(STAGES + OWN, 1), barriers(STAGES, 2)
    return full, empty, (barriers(1, 1).index(0), barriers(1, 2).index(0))


@gluon.jit
def sums_of_rows(STAGES: gl.constexpr):
    """Room for LSE and delta of the rows of each slot: seen by slots, and by LANES numbers."""
    line: gl.constexpr = gl.NVMMASharedLayout(0, 32, rank=1)
    lbuf = gl.allocate_shared_memory(gl.float32, [STAGES, ROWS], line)
    dbuf = gl.allocate_shared_memory(gl.float32, [STAGES, ROWS], line)
    llanes = reinterpret(lbuf, gl.float32, [STAGES * (ROWS // LANES), LANES], line)
    dlanes = reinterpret(dbuf, gl.float32, [STAGES * (ROWS // LANES), LANES], line)
    return (lbuf, dbuf), (llanes, dlanes)


@gluon.jit
def told_of_tiles(BOXES: gl.constexpr, STAGES: gl.constexpr, CONSUMERS: gl.constexpr):
    """Where a producer tells consumers of BOXES tiles, of what they keep of each slot, and of where its keys are."""
    return numbers(BOXES * TILE, 1), numbers(STAGES * CONSUMERS, 1), numbers(STAGES, ROWS)


@gluon.jit
def told_of_rows(STAGES: gl.constexpr):
    """Where a producer tells consumers of the rows of each slot: seen by LANES rows, as its warp writes them, and by
    slots."""
    lanes = numbers(STAGES * (ROWS // LANES), LANES)
    return lanes, reinterpret(lanes, gl.int32, [STAGES, ROWS], PLAIN)
