"""Shared memory of the Hopper kernels: rooms that TMA fills and products read, barriers, and numbers to be told."""

from .box import TILE
from .columns import PIECE, SIDE
from .names import BARRIER, gl, gluon, init_barrier, reinterpret
from .produce import CHUNK, CHUNKS
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
def ring_of(dtype: gl.constexpr, STAGES: gl.constexpr, RUN: gl.constexpr, CONSUMERS: gl.constexpr):
    """A ring of slots of keys and values: what TMA fills, in boxes of each kind; what consumers need (operands, full
    and empty barriers); the rows of keys and those of values. The last full barrier is the producer's own."""
    kbuf, kruns, kfars, kview, krows = rooms(dtype, STAGES, RUN)
    vbuf, vruns, vfars, vview, vrows = rooms(dtype, STAGES, RUN)
    ring = (kview, vview, barriers(STAGES + 1, 1), barriers(STAGES, CONSUMERS))
    return ((kbuf, vbuf), (kruns, vruns), (kfars, vfars)), ring, (krows, vrows)


@gluon.jit
def told_of_tiles(BOXES: gl.constexpr, STAGES: gl.constexpr, CONSUMERS: gl.constexpr):
    """Where a producer tells consumers of BOXES tiles, of what they keep of each slot, and of where its keys are."""
    return numbers(BOXES * TILE, 1), numbers(STAGES * CONSUMERS, 1), numbers(STAGES, ROWS)
