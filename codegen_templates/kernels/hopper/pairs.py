"""Steps of the Hopper forward over two slots at once: half as many waits and rescalings a slot, for long rows."""

from .names import arrive, gl, gluon, wait, warpgroup_mma, warpgroup_mma_wait
from .steps import as_weights, by_rows, scores, softmax
from .tiles import after


@gluon.jit
def step_two(b_q, b_o, b_max, b_sum, b_p, b_p1, ring, place, phase, held, held1, more, scale, s_layout: gl.constexpr,
             o_layout: gl.constexpr, STAGES: gl.constexpr, FROM_ONE: gl.constexpr):  # fmt: skip
    """Go on to the next two far slots, from two or from one. The slot after them is waited for, and if there are `more`
    the one after that."""
    kview, vview, full, empty = ring
    place1, phase1 = after(place, phase, STAGES)
    if FROM_ONE:
        wait(full.index(place1), phase1)
    b_s = scores(b_q, kview.index(place), s_layout)
    b_s1 = scores(b_q, kview.index(place1), s_layout)
    b_o = warpgroup_mma(b_p, vview.index(held), b_o, is_async=True)
    if not FROM_ONE:
        b_o = warpgroup_mma(b_p1, vview.index(held1), b_o, is_async=True)
    b_s, b_s1 = warpgroup_mma_wait(1 if FROM_ONE else 2, deps=(b_s, b_s1))
    b_new = gl.maximum(b_max, gl.max(gl.maximum(b_s, b_s1), 1) * scale)
    b_w = gl.exp2(b_s * scale - gl.expand_dims(b_new, 1))
    b_w1 = gl.exp2(b_s1 * scale - gl.expand_dims(b_new, 1))
    b_old = gl.exp2(b_max - b_new)
    b_sum = b_sum * b_old + gl.sum(b_w + b_w1, 1)
    next_place, next_phase = after(place1, phase1, STAGES)
    wait(full.index(next_place), next_phase)
    next1, after1 = after(next_place, next_phase, STAGES)
    wait(full.index(next1), after1, pred=more)
    b_o = warpgroup_mma_wait(0, deps=(b_o,))
    arrive(empty.index(held), count=1)
    if not FROM_ONE:
        arrive(empty.index(held1), count=1)
    b_o = b_o * by_rows(b_old, o_layout)
    b_p = as_weights(b_w, kview.dtype, o_layout)
    b_p1 = as_weights(b_w1, kview.dtype, o_layout)
    return b_o, b_new, b_sum, b_p, b_p1, next_place, next_phase, place, place1


@gluon.jit
def step_from_two(b_q, b_o, b_max, b_sum, b_p, b_p1, ring, place, phase, held, held1, scale, s_layout: gl.constexpr,
                  o_layout: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    """Go on from two slots to the tile's last one."""
    kview, vview, _full, empty = ring
    b_s = scores(b_q, kview.index(place), s_layout)
    b_o = warpgroup_mma(b_p, vview.index(held), b_o, is_async=True)
    b_o = warpgroup_mma(b_p1, vview.index(held1), b_o, is_async=True)
    b_s = warpgroup_mma_wait(2, deps=(b_s,))
    b_max, b_sum, b_new, b_old = softmax(b_s, b_max, b_sum, scale)
    b_o = warpgroup_mma_wait(0, deps=(b_o,))
    arrive(empty.index(held), count=1)
    arrive(empty.index(held1), count=1)
    b_o = b_o * by_rows(b_old, o_layout)
    next_place, next_phase = after(place, phase, STAGES)
    return b_o, b_max, b_sum, as_weights(b_new, kview.dtype, o_layout), next_place, next_phase, place
