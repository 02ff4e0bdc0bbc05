"""Steps of the fused Hopper backward: a slot of rows is added to dK and dV, and half a tile of dQ is made of it."""

from ..row_map import keeps_near, rule_of
from ..tiles import BLOCK_BITS, IS_TABLE, late_zero
from .add_tiles import HALF, leave_half
from .backward_steps import gradient, weights
from .box import told
from .masks import FINE, SIDE
from .names import arrive, fence_async_shared, gl, gluon, wait, warpgroup_mma, warpgroup_mma_wait
from .produce_fused import CLASS, EXACT, FIRST_ROW, RANK, TILE, WORDS
from .row_masks import kept_blocks, keys_told
from .steps import as_weights, scores
from .tiles import ROWS


@gluon.jit
def columns_of_dq(W: gl.constexpr, kview, grads, turn, late):
    """Half W of the columns of a slot's dQ, from what both consumers have left. Not waited for. [rows, HALF]"""
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HALF, 16])
    own = (turn & 1) * 2 + late
    b_dq = gl.zeros([ROWS, HALF], gl.float32, layout)
    first, second = kview.index(late).slice(W * HALF, HALF, 1), kview.index(late + 1).slice(W * HALF, HALF, 1)
    b_dq = warpgroup_mma(grads.index(own).permute((1, 0)), first, b_dq, use_acc=False, is_async=True)
    return warpgroup_mma(grads.index(own + 1).permute((1, 0)), second, b_dq, is_async=True)


@gluon.jit
def step_rows(W: gl.constexpr, keys_of, b_dk, b_dv, ring, lines, place, phase, turn, left, k_empty, kept, item, tiles,
              scale, s_layout: gl.constexpr, o_layout: gl.constexpr, IS_FAR: gl.constexpr):  # fmt: skip
    """Add the rows of a slot, which has been waited for, to dK and dV, and make half of its dQ. If none are `left` of
    the item, keys and values are free for the next item.

    Keys, and values, that no row keeps are zeros in shared memory, so that no gradient of a score is no number, as long
    as what is kept are numbers: weights of 0 are enough.
    """
    qview, gview, full, empty = ring
    kview, vview = keys_of
    grads, _halves, _told_tile, made, _tile_full, _tile_empty = tiles
    log_sums, deltas = lines
    late = late_zero(left)  # so that addresses of keys and values hold no registers from slot to slot
    b_s = scores(kview.index(W + late), qview.index(place), s_layout)  # [keys, rows]
    b_dp = scores(vview.index(W + late), gview.index(place), s_layout)
    b_s = warpgroup_mma_wait(1, deps=(b_s,))
    b_p = weights(b_s, log_sums, place, scale, s_layout)
    if not IS_FAR:
        b_p = masked_slot(W, b_p, place, kept, item, late, s_layout)
    else:  # without a branch, exp2 would sink behind the wait for the next product: this is what was waited for
        wait(full.index(place), phase)
    b_weights = as_weights(b_p, qview.dtype, o_layout)
    b_dp = warpgroup_mma_wait(0, deps=(b_dp,))
    b_dv = warpgroup_mma(b_weights, gview.index(place), b_dv, is_async=True)
    b_delta = gl.expand_dims(deltas.index(place).load(gl.SliceLayout(0, s_layout)), 0)
    b_ds = gradient(b_p, b_dp, b_delta, True).to(qview.dtype)
    grads.index((turn & 1) * 2 + W + late).store(b_ds)
    fence_async_shared()
    arrive(made, count=1)
    b_dk = warpgroup_mma(as_weights(b_ds, qview.dtype, o_layout), qview.index(place), b_dk, is_async=True)
    wait(made, turn & 1)
    b_dq = columns_of_dq(W, kview, grads, turn, late)
    b_dv, b_dk = warpgroup_mma_wait(1, deps=(b_dv, b_dk))
    end_slot(W, b_dq, place, turn, left, k_empty, empty, item[0], tiles)
    return b_dk, b_dv


@gluon.jit
def end_slot(W: gl.constexpr, b_dq, place, turn, left, k_empty, empty, words, tiles):
    """Free the slot, whose dQ alone is not there yet, and leave half of it."""
    tile, rank = told(words, place * WORDS + TILE), told(words, place * WORDS + RANK)
    arrive(empty.index(place), count=1)
    b_dq = warpgroup_mma_wait(0, deps=(b_dq,))
    if left == 0:
        arrive(k_empty, count=1)
    leave_half(W, b_dq, tile, rank, turn, tiles)


@gluon.jit
def pass_rows(W: gl.constexpr, keys_of, ring, place, turn, left, k_empty, words, tiles, s_layout: gl.constexpr):
    """Make this consumer's half of dQ for a slot whose rows keep none of its own keys. It writes zeros for its own dS,
    so that dQ comes from the other consumer's keys alone."""
    qview, _gview, _full, empty = ring
    kview, _vview = keys_of
    grads, _halves, _told_tile, made, _tile_full, _tile_empty = tiles
    late = late_zero(left)
    grads.index((turn & 1) * 2 + W + late).store(gl.zeros([ROWS, ROWS], qview.dtype, s_layout))
    fence_async_shared()
    arrive(made, count=1)
    wait(made, turn & 1)
    b_dq = columns_of_dq(W, kview, grads, turn, late)
    end_slot(W, b_dq, place, turn, left, k_empty, empty, words, tiles)


@gluon.jit
def masked_slot(W: gl.constexpr, b_p, place, kept, item, late, s_layout: gl.constexpr):
    """The weights of a consumer's keys for the rows of a slot, 0 where a row does not keep a key. [keys, rows]"""
    words, lasts, box, o_box, pattern = item
    last = gl.expand_dims(lasts.index(place).load(gl.SliceLayout(0, s_layout)), 0)
    u = gl.expand_dims(keys_told(W, box, o_box, gl.SliceLayout(1, s_layout)) + late, 1)
    t = gl.expand_dims(told(words, place * WORDS + FIRST_ROW) + gl.arange(0, ROWS, gl.SliceLayout(0, s_layout)), 0)
    i_class = told(words, place * WORDS + CLASS)
    rule = rule_of(pattern + i_class, pattern, i_class)
    probe = keeps_near(kept, kept, kept, t, u, rule)
    if len(probe.shape) > 0:  # of near rows; strides have no rule of tokens
        if kept >= EXACT:
            keep = keeps_near(kept, t >> BLOCK_BITS, u >> BLOCK_BITS, t, u, rule)
            if IS_TABLE:  # it says what else is kept, by blocks
                keep = keep | kept_blocks(kept, s_layout)
            b_p = gl.where(keep & (u <= last), b_p, 0.0)
        else:
            b_p = masked_by_words(b_p, kept, u, last, s_layout)
    else:
        b_p = masked_by_words(b_p, kept, u, last, s_layout)
    return b_p


@gluon.jit
def masked_by_words(b_p, kept, u, last, s_layout: gl.constexpr):
    """The same by the blocks that are kept, and by the last key that each row may keep."""
    if SIDE > 1:
        b_p = gl.where(kept_blocks(kept, s_layout), b_p, 0.0)
    if kept >= FINE:
        b_p = gl.where(u <= last, b_p, 0.0)
    return b_p
