"""Block-sparse attention, backward: what dQ, and dK and dV, read of the rows, and the weights of a tile."""

import triton
import triton.language as tl

from .tiles import BLOCK_V, HAS_SOFTCAP, LOG2_E, V_HEAD_DIM, capped, load_rows


@triton.jit(do_not_specialize=["q_len", "s_ob", "s_oh", "s_on", "s_gb", "s_gh", "s_gn", "s_lb", "s_lh", "s_db", "s_dh"])
def attn_bwd_prepare(
    out,  # [batch, heads, q_len, V_HEAD_DIM]
    dout,
    lse,  # [batch, heads, q_len]
    dlse,  # [batch, heads, q_len], or None
    log_sum,  # written: LSE in powers of 2, +inf where nothing was kept, so that every weight is 0 there
    delta,  # written: what a row's softmax subtracts from the gradient of its weights
    q_len,
    s_ob,  # strides of out and dout, in units of ALIGN numbers
    s_oh,
    s_on,
    s_gb,
    s_gh,
    s_gn,
    s_lb,
    s_lh,
    s_db,
    s_dh,
    BLOCK_M: tl.constexpr,
    ALIGN: tl.constexpr,
):
    o_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    i_head = tl.program_id(1).to(tl.int64)
    i_batch = tl.program_id(2).to(tl.int64)
    m_m = o_m < q_len
    o_out = (i_batch * s_ob + i_head * s_oh + o_m.to(tl.int64) * s_on) * ALIGN
    o_dout = (i_batch * s_gb + i_head * s_gh + o_m.to(tl.int64) * s_gn) * ALIGN
    b_out = load_rows(out, o_out[:, None], m_m, V_HEAD_DIM, BLOCK_V).to(tl.float32)  # [BLOCK_M, BLOCK_V]
    b_dout = load_rows(dout, o_dout[:, None], m_m, V_HEAD_DIM, BLOCK_V).to(tl.float32)
    b_delta = tl.sum(b_out * b_dout, 1)  # [BLOCK_M]
    b_lse = tl.load(lse + i_batch * s_lb + i_head * s_lh + o_m, mask=m_m, other=float("-inf"))
    if dlse is not None:
        b_delta -= tl.load(dlse + i_batch * s_db + i_head * s_dh + o_m, mask=m_m, other=0.0)
    is_empty = b_lse == float("-inf")
    p_row = (i_batch * tl.num_programs(1) + i_head) * q_len + o_m
    tl.store(log_sum + p_row, tl.where(is_empty, float("inf"), b_lse * LOG2_E), mask=m_m)
    tl.store(delta + p_row, tl.where(is_empty, 0.0, b_delta), mask=m_m)


@triton.jit
def weights(b_q, b_k, b_v, b_dout, b_log_sum, b_delta, m_keep, scale, PRECISION: tl.constexpr):
    """(b_p, b_ds): the softmax weights of a tile and the gradient of its scores, before the scale. Both [rows of b_q,
    rows of b_k]."""
    b_s = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION)
    b_s, factor = capped(b_s, scale)
    b_p = tl.exp2(b_s * factor - b_log_sum)
    b_dp = tl.dot(b_dout, tl.trans(b_v), input_precision=PRECISION)
    b_ds = b_p * (b_dp - b_delta)
    if HAS_SOFTCAP:
        b_ds *= 1 - b_s * b_s
    if m_keep is not None:  # both: 0 times what a row does not keep may be NaN
        b_p = tl.where(m_keep, b_p, 0.0)
        b_ds = tl.where(m_keep, b_ds, 0.0)
    return b_p, b_ds
