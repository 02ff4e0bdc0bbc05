"""Steps of the Hopper backward: weights and their gradients for a slot, while products with the slot before go on."""

from ..tiles import late_zero
from .masks import WHOLE, masked
from .names import arrive, gl, gluon, wait, warpgroup_mma, warpgroup_mma_wait
from .row_masks import masked_rows
from .steps import as_weights, scores
from .tiles import after


@gluon.jit
def gradient(b_p, b_dp, b_delta, IS_FAR: gl.constexpr):
    """The gradient of scores: of weights b_p, whose own is b_dp. 0 where a weight is 0: there b_dp may be no number."""
    b_ds = b_p * (b_dp - b_delta)
    if not IS_FAR:
        b_ds = gl.where(b_p != 0.0, b_ds, 0.0)
    return b_ds


@gluon.jit
def step_dq(q, dout, b_dq, b_ds, b_log_sum, b_delta, ring, place, phase, held, more, n, kept, edge, scale,
            s_layout: gl.constexpr, o_layout: gl.constexpr, STAGES: gl.constexpr, IS_FIRST: gl.constexpr,
            IS_FAR: gl.constexpr):  # fmt: skip
    """Go on to the next slot: meanwhile the gradients of the slot `held` meet its keys, but for a tile's first.

    It has been waited for. If there are `more`, the one behind it is waited for here: that stands where exp2 shall not
    sink behind the wait for a product, as it would without a branch between.
    """
    kview, vview, full, empty = ring
    b_s = scores(q, kview.index(place), s_layout)  # [rows, keys]
    b_dp = scores(dout, vview.index(place), s_layout)
    if not IS_FIRST:
        b_dq = warpgroup_mma(b_ds, kview.index(held), b_dq, is_async=True)
    b_s = warpgroup_mma_wait(1 if IS_FIRST else 2, deps=(b_s,)) * scale
    if not IS_FAR and kept != WHOLE:
        b_s = masked(b_s, n, kept, place, edge, s_layout)
    b_p = gl.exp2(b_s - gl.expand_dims(b_log_sum, 1))
    next_place, next_phase = after(place, phase, STAGES)
    wait(full.index(next_place), next_phase, pred=more)
    b_dp = warpgroup_mma_wait(0 if IS_FIRST else 1, deps=(b_dp,))
    b_new = gradient(b_p, b_dp, gl.expand_dims(b_delta, 1), IS_FAR)
    if not IS_FIRST:
        b_dq = warpgroup_mma_wait(0, deps=(b_dq,))
        arrive(empty.index(held), count=1)
    return b_dq, as_weights(b_new, kview.dtype, o_layout), next_place, next_phase, place


@gluon.jit
def weights(b_s, log_sums, place, scale, s_layout: gl.constexpr):
    """The weights of a slot's scores. [keys, rows]"""
    b_log_sum = gl.expand_dims(log_sums.index(place).load(gl.SliceLayout(0, s_layout)), 0)
    return gl.exp2(b_s * scale - b_log_sum)


@gluon.jit
def add_products(b_dk, b_dv, b_p, b_weights, b_dp, ring, deltas, place, s_layout: gl.constexpr, o_layout: gl.constexpr,
                 IS_FAR: gl.constexpr):  # fmt: skip
    """Add a slot's products to dK and dV, not waited for: that of dV begins before scores have gradients."""
    qview, gview, _full, _empty = ring
    b_dv = warpgroup_mma(b_weights, gview.index(place), b_dv, is_async=True)
    b_delta = gl.expand_dims(deltas.index(place).load(gl.SliceLayout(0, s_layout)), 0)
    b_ds = as_weights(gradient(b_p, b_dp, b_delta, IS_FAR), qview.dtype, o_layout)
    b_dk = warpgroup_mma(b_ds, qview.index(place), b_dk, is_async=True)
    return b_dk, b_dv


@gluon.jit
def add_rows(W: gl.constexpr, keys_of, b_dk, b_dv, ring, lines, place, is_last, kv_empty, kept, item, scale,
             s_layout: gl.constexpr, o_layout: gl.constexpr):  # fmt: skip
    """Add the rows of an edge slot, which has been waited for, to dK and dV. If it is the last of an item, keys and
    values are free for the next item."""
    qview, gview, _full, empty = ring
    kview, vview = keys_of
    log_sums, deltas = lines
    w = W + late_zero(place)  # so that addresses of keys and values hold no registers from slot to slot
    b_s = scores(kview.index(w), qview.index(place), s_layout)  # [keys, rows]
    b_dp = scores(vview.index(w), gview.index(place), s_layout)
    b_s = warpgroup_mma_wait(1, deps=(b_s,))
    b_p = weights(b_s, log_sums, place, scale, s_layout)
    if kept != WHOLE:
        b_p = masked_rows(W, b_p, place, kept, item, s_layout)
    b_weights = as_weights(b_p, qview.dtype, o_layout)
    b_dp = warpgroup_mma_wait(0, deps=(b_dp,))
    arrive(kv_empty, count=1, pred=is_last)
    b_dk, b_dv = add_products(b_dk, b_dv, b_p, b_weights, b_dp, ring, deltas, place, s_layout, o_layout, False)
    b_dv, b_dk = warpgroup_mma_wait(0, deps=(b_dv, b_dk))
    arrive(empty.index(place), count=1)
    return b_dk, b_dv
