"""Steps of the Hopper forward: a slot's scores and weights, while the weights of the slot before meet their values."""

from .masks import WHOLE, masked
from .names import arrive, gl, gluon, wait, warpgroup_mma, warpgroup_mma_wait
from .tiles import ROWS, after

# of sums, [64, 4]: four lanes share a row, each adds up its own weights, and only a tile's last sums meet
LANES = gl.constexpr(
    gl.DistributedLinearLayout(
        [[8, 0]], [[0, 1], [0, 2], [1, 0], [2, 0], [4, 0]], [[16, 0], [32, 0]], [], [ROWS.value, 4]
    )
)
FLOOR = gl.constexpr(-3.0e38)  # the maximum of rows that have kept nothing: finite, so that -inf minus it is no NaN


@gluon.jit
def scores(b_q, kview, s_layout: gl.constexpr):
    """Products of queries and a slot's keys, not waited for. [64, 64]"""
    zero = gl.zeros([ROWS, ROWS], gl.float32, s_layout)
    return warpgroup_mma(b_q, kview.permute((1, 0)), zero, use_acc=False, is_async=True)


@gluon.jit
def by_lanes(b_p):
    """The sums of weights [64, 64], for each row one of each of its lanes. [64, 4]"""
    b_p = gl.reshape(b_p, [ROWS, ROWS // 8, 4, 2])
    return gl.convert_layout(gl.sum(gl.sum(b_p, 3), 1), LANES)


@gluon.jit
def softmax(b_s, b_max, b_sum, scale):
    """A step of online softmax, in powers of 2: the new maximum and sums, the weights, and what the past is worth."""
    b_new = gl.maximum(b_max, gl.max(b_s, 1) * scale)
    b_p = gl.exp2(b_s * scale - gl.expand_dims(b_new, 1))
    b_old = gl.exp2(b_max - b_new)
    b_past = gl.expand_dims(gl.convert_layout(b_old, gl.SliceLayout(1, LANES)), 1)
    return b_new, b_sum * b_past + by_lanes(b_p), b_p, b_old


@gluon.jit
def by_rows(b_x, o_layout: gl.constexpr):
    """A number for each row, to be multiplied with the output. [64, 1]"""
    return gl.expand_dims(gl.convert_layout(b_x, gl.SliceLayout(1, o_layout)), 1)


@gluon.jit
def as_weights(b_p, dtype: gl.constexpr, o_layout: gl.constexpr):
    """b_p as the first operand of a product, rounded to `dtype`. [64, 64]"""
    return gl.convert_layout(b_p.to(dtype), gl.DotOperandLayout(0, o_layout, 2))


@gluon.jit
def mask_edge(b_s, n, kept, place, edge, s_layout: gl.constexpr):
    """The scores of an edge slot, under the exact rule unless all are kept."""
    if kept != WHOLE:
        b_s = masked(b_s, n, kept, place, edge, s_layout)
    return b_s


@gluon.jit
def begin(b_s, scale):
    """The first slot of a tile: maximum, sums, weights."""
    b_max = gl.maximum(gl.max(b_s, 1) * scale, FLOOR)
    b_p = gl.exp2(b_s * scale - gl.expand_dims(b_max, 1))
    return b_max, by_lanes(b_p), b_p


@gluon.jit
def start(b_q, ring, place, phase, n, kept, edge, scale, s_layout: gl.constexpr, o_layout: gl.constexpr,
          STAGES: gl.constexpr):  # fmt: skip
    """The first slot of a program's first tile."""
    kview, _vview, _full, _empty = ring
    b_s = scores(b_q, kview.index(place), s_layout)
    b_s = warpgroup_mma_wait(0, deps=(b_s,))
    b_max, b_sum, b_p = begin(mask_edge(b_s, n, kept, place, edge, s_layout), scale)
    next_place, phase = after(place, phase, STAGES)
    return b_max, b_sum, as_weights(b_p, kview.dtype, o_layout), next_place, phase, place


@gluon.jit
def meet(b_q, b_o, b_p, ring, place, phase, held, n, kept, edge, scale, s_layout: gl.constexpr, o_layout: gl.constexpr,
         STAGES: gl.constexpr):  # fmt: skip
    """The first slot of a tile, with the last product of the tile before."""
    kview, vview, full, empty = ring
    b_s = scores(b_q, kview.index(place), s_layout)
    b_o = warpgroup_mma(b_p, vview.index(held), b_o, is_async=True)
    b_s = warpgroup_mma_wait(1, deps=(b_s,))
    b_max, b_sum, b_new = begin(mask_edge(b_s, n, kept, place, edge, s_layout), scale)
    next_place, next_phase = after(place, phase, STAGES)
    wait(full.index(next_place), next_phase, pred=n > 0)
    b_o = warpgroup_mma_wait(0, deps=(b_o,))
    arrive(empty.index(held), count=1)
    return b_o, b_max, b_sum, as_weights(b_new, kview.dtype, o_layout), next_place, next_phase, place


@gluon.jit
def step(b_q, b_o, b_max, b_sum, b_p, ring, place, phase, held, more, n, kept, edge, scale, s_layout: gl.constexpr,
         o_layout: gl.constexpr, STAGES: gl.constexpr, IS_FAR: gl.constexpr):  # fmt: skip
    """Go on to the next slot, which has been waited for. If there are `more`, the one behind it is waited for here:
    that stands where exp2 shall not sink behind the wait for a product, as it would without a branch between."""
    kview, vview, full, empty = ring
    b_s = scores(b_q, kview.index(place), s_layout)
    b_o = warpgroup_mma(b_p, vview.index(held), b_o, is_async=True)
    b_s = warpgroup_mma_wait(1, deps=(b_s,))
    if not IS_FAR:
        b_s = mask_edge(b_s, n, kept, place, edge, s_layout)
    b_max, b_sum, b_new, b_old = softmax(b_s, b_max, b_sum, scale)
    next_place, next_phase = after(place, phase, STAGES)
    wait(full.index(next_place), next_phase, pred=more)
    b_o = warpgroup_mma_wait(0, deps=(b_o,))
    arrive(empty.index(held), count=1)
    b_o = b_o * by_rows(b_old, o_layout)
    return b_o, b_max, b_sum, as_weights(b_new, kview.dtype, o_layout), next_place, next_phase, place


@gluon.jit
def finish(b_o, b_p, ring, held):
    """The last product of a program's last tile."""
    _kview, vview, _full, empty = ring
    b_o = warpgroup_mma(b_p, vview.index(held), b_o, is_async=True)
    b_o = warpgroup_mma_wait(0, deps=(b_o,))
    arrive(empty.index(held), count=1)
    return b_o
