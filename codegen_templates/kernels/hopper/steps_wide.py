"""Steps of the Hopper forward for wide heads: keys and values have rings of their own, queries stay in shared
memory."""

from ..tiles import late_zero
from .names import arrive, gl, gluon, wait, warpgroup_mma, warpgroup_mma_wait
from .steps import as_weights, begin, by_rows, mask_edge, scores, softmax
from .tiles import after


@gluon.jit
def step_wide(W: gl.constexpr, qview, b_o, b_max, b_sum, b_p, ring, at, held, more, n, kept, edge, scale,
              s_layout: gl.constexpr, o_layout: gl.constexpr, K_STAGES: gl.constexpr, V_STAGES: gl.constexpr,
              IS_FIRST: gl.constexpr, IS_FAR: gl.constexpr):  # fmt: skip
    """Go on to the next slot, whose keys have been waited for: they are free once there are masked scores. Meanwhile
    the weights of the slot before meet their values, whose place and phase `held` says, but for a tile's first. If
    there are `more`, the next keys are waited for here: that stands where exp2 shall not sink behind the wait for a
    product, as it would without a branch between."""
    kview, vview, k_full, k_empty, v_full, v_empty = ring
    k, k_phase, v, v_phase = at
    # where queries lie is worked out in each step: kept, their 16 descriptors would take half of all uniform registers
    b_s = scores(qview.index(W + late_zero(k)), kview.index(k), s_layout)
    if not IS_FIRST:
        wait(v_full.index(held[0]), held[1])
        b_o = warpgroup_mma(b_p, vview.index(held[0]), b_o, is_async=True)
    b_s = warpgroup_mma_wait(0 if IS_FIRST else 1, deps=(b_s,))
    if not IS_FAR:
        b_s = mask_edge(b_s, n, kept, k, edge, s_layout)
    arrive(k_empty.index(k), count=1)
    if IS_FIRST:
        b_max, b_sum, b_new = begin(b_s, scale)
    else:
        b_max, b_sum, b_new, b_old = softmax(b_s, b_max, b_sum, scale)
    k, k_phase = after(k, k_phase, K_STAGES)
    wait(k_full.index(k), k_phase, pred=more)
    if not IS_FIRST:
        b_o = warpgroup_mma_wait(0, deps=(b_o,))
        arrive(v_empty.index(held[0]), count=1)
        b_o = b_o * by_rows(b_old, o_layout)
    next_v, next_phase = after(v, v_phase, V_STAGES)
    b_p = as_weights(b_new, kview.dtype, o_layout)
    return b_o, b_max, b_sum, b_p, (k, k_phase, next_v, next_phase), (v, v_phase)


@gluon.jit
def pass_wide(ring, at, K_STAGES: gl.constexpr, V_STAGES: gl.constexpr):
    """Free a slot's keys, which have been waited for, and values without a look at them."""
    _kview, _vview, _k_full, k_empty, v_full, v_empty = ring
    k, k_phase, v, v_phase = at
    arrive(k_empty.index(k), count=1)
    wait(v_full.index(v), v_phase)
    arrive(v_empty.index(v), count=1)
    k, k_phase = after(k, k_phase, K_STAGES)
    v, v_phase = after(v, v_phase, V_STAGES)
    return k, k_phase, v, v_phase


@gluon.jit
def finish_wide(b_o, b_p, ring, held):
    """The last product of a tile."""
    _kview, vview, _k_full, _k_empty, v_full, v_empty = ring
    wait(v_full.index(held[0]), held[1])
    b_o = warpgroup_mma(b_p, vview.index(held[0]), b_o, is_async=True)
    b_o = warpgroup_mma_wait(0, deps=(b_o,))
    arrive(v_empty.index(held[0]), count=1)
    return b_o
