"""Steps of dK and dV over far slots, whose rows keep every key: while a slot's last products go on, those of the next
slot's scores follow them, so that the tensor cores do not wait for a consumer between two slots."""

from ..tiles import late_zero
from .backward_steps import add_products, weights
from .names import arrive, gl, gluon, wait, warpgroup_mma_wait
from .steps import as_weights, scores
from .tiles import after


@gluon.jit
def begin_far(W: gl.constexpr, keys_of, ring, place, s_layout: gl.constexpr):
    """The first far slot, which has been waited for: its scores [keys, rows], and its weights' gradients, not waited
    for."""
    qview, gview, _full, _empty = ring
    kview, vview = keys_of
    w = W + late_zero(place)
    b_s = scores(kview.index(w), qview.index(place), s_layout)
    b_dp = scores(vview.index(w), gview.index(place), s_layout)
    return warpgroup_mma_wait(1, deps=(b_s,)), b_dp


@gluon.jit
def add_far(W: gl.constexpr, keys_of, b_dk, b_dv, b_s, b_dp, ring, lines, place, phase, scale, s_layout: gl.constexpr,
            o_layout: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    """Add the rows of a far slot that is not the last to dK and dV; b_s and b_dp become the next slot's.

    The product of dV ends before the next scores begin: it began long before, and its weights' registers are needed.
    """
    qview, gview, full, empty = ring
    kview, vview = keys_of
    log_sums, deltas = lines
    w = W + late_zero(place)  # so that addresses of keys and values hold no registers from slot to slot
    b_p = weights(b_s, log_sums, place, scale, s_layout)
    b_weights = as_weights(b_p, qview.dtype, o_layout)
    next_place, next_phase = after(place, phase, STAGES)
    wait(full.index(next_place), next_phase)
    b_dp = warpgroup_mma_wait(0, deps=(b_dp,))
    b_dk, b_dv = add_products(b_dk, b_dv, b_p, b_weights, b_dp, ring, deltas, place, s_layout, o_layout, True)
    b_dv = warpgroup_mma_wait(1, deps=(b_dv,))
    b_s = scores(kview.index(w), qview.index(next_place), s_layout)
    b_dk = warpgroup_mma_wait(1, deps=(b_dk,))
    arrive(empty.index(place), count=1)
    b_dp = scores(vview.index(w), gview.index(next_place), s_layout)
    b_s = warpgroup_mma_wait(1, deps=(b_s,))
    return b_dk, b_dv, b_s, b_dp, next_place, next_phase


@gluon.jit
def end_far(b_dk, b_dv, b_s, b_dp, ring, lines, place, phase, kv_empty, scale, s_layout: gl.constexpr,
            o_layout: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    """Add the rows of an item's last slot to dK and dV: keys and values are free for the next item."""
    qview, _gview, _full, empty = ring
    log_sums, deltas = lines
    b_p = weights(b_s, log_sums, place, scale, s_layout)
    b_weights = as_weights(b_p, qview.dtype, o_layout)
    b_dp = warpgroup_mma_wait(0, deps=(b_dp,))
    arrive(kv_empty, count=1)
    b_dk, b_dv = add_products(b_dk, b_dv, b_p, b_weights, b_dp, ring, deltas, place, s_layout, o_layout, True)
    b_dv, b_dk = warpgroup_mma_wait(0, deps=(b_dv, b_dk))
    arrive(empty.index(place), count=1)
    next_place, next_phase = after(place, phase, STAGES)
    return b_dk, b_dv, next_place, next_phase
