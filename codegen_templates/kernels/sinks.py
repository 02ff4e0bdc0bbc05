"""Sinks, which stand in the sums of softmax and attend nothing: put into outputs and LSEs, and their gradient."""

import triton
import triton.language as tl

from .tiles import BLOCK_V, LOG2_E, V_HEAD_DIM, load_rows

# fmt: off
SINK_INTS = ["requests", "q_len", "tiles", "s_ob", "s_oh", "s_on", "s_lb", "s_lh"]
# fmt: on


@triton.jit
def with_sinks(b_lse, b_sink):
    """(share, LSE) of a softmax in whose sum exp(b_sink) stands too: what of its output is left, and the new LSE."""
    b_most = tl.maximum(b_lse, b_sink)
    b_more = tl.log(1.0 + tl.exp(-tl.abs(b_lse - b_sink)))
    m_empty = b_lse == float("-inf")
    b_total = tl.where(m_empty, b_sink, b_most + b_more)
    b_share = tl.where(m_empty, 1.0, tl.exp(b_lse - b_total))  # without keys the output is 0 already
    return tl.where(b_sink < float("inf"), b_share, float("nan")), b_total  # +inf and NaN, as of torch's softmax


@triton.jit(do_not_specialize=SINK_INTS, do_not_specialize_on_alignment=["sinks"])
def attn_sinks(
    out,  # [batch, heads, rows, V_HEAD_DIM], of a softmax without sinks; written: of one with them
    lse,  # [batch, heads, rows], likewise
    sinks,  # [heads]
    starts,  # [requests + 1] where packed requests begin: rows outside have no softmax; None: there are none
    requests,
    q_len,
    tiles,  # of rows
    s_ob,  # strides of out, in units of ALIGN numbers
    s_oh,
    s_on,
    s_lb,
    s_lh,
    ROWS: tl.constexpr,
    ALIGN: tl.constexpr,
):
    i_batch = (tl.program_id(0) // tiles).to(tl.int64)
    i_head = tl.program_id(1).to(tl.int64)
    o_m = tl.program_id(0) % tiles * ROWS + tl.arange(0, ROWS)  # [ROWS]
    m_m = o_m < q_len
    if starts is not None:
        m_m &= (o_m >= tl.load(starts)) & (o_m < tl.load(starts + requests))
    b_sink = tl.load(sinks + i_head).to(tl.float32)
    p_lse = lse + i_batch * s_lb + i_head * s_lh + o_m
    b_lse = tl.load(p_lse, mask=m_m, other=0.0)
    b_share, b_total = with_sinks(b_lse, b_sink)
    o_out = (i_batch * s_ob + i_head * s_oh + o_m.to(tl.int64) * s_on) * ALIGN
    b_out = load_rows(out, o_out[:, None], m_m, V_HEAD_DIM, BLOCK_V).to(tl.float32)  # [ROWS, BLOCK_V]
    o_d = tl.arange(0, BLOCK_V)[None, :]
    b_out = (b_out * b_share[:, None]).to(out.dtype.element_ty)
    tl.store((out + o_out[:, None]) + o_d, b_out, mask=m_m[:, None] & (o_d < V_HEAD_DIM))
    tl.store(p_lse, b_total, mask=m_m)


@triton.jit(do_not_specialize=["batch", "q_len"], do_not_specialize_on_alignment=["sinks"])
def attn_bwd_sinks(
    log_sum,  # [batch, heads, rows], of `attn_bwd_prepare`: LSE with sinks, in powers of 2
    delta,
    sinks,  # [heads]
    dsinks,  # written
    batch,
    q_len,
    ROWS: tl.constexpr,
):
    i_head = tl.program_id(0)
    b_sink = tl.load(sinks + i_head).to(tl.float32) * LOG2_E
    b_sum = tl.zeros([ROWS], tl.float32)
    for i_batch in range(batch):
        i_first = (tl.cast(i_batch, tl.int64) * tl.num_programs(0) + i_head) * q_len
        for first in range(0, q_len, ROWS):
            o_m = first + tl.arange(0, ROWS)  # [ROWS]
            m_m = o_m < q_len
            b_log_sum = tl.load(log_sum + i_first + o_m, mask=m_m, other=float("inf"))
            b_delta = tl.load(delta + i_first + o_m, mask=m_m, other=0.0)
            b_weight = tl.where(b_log_sum == float("inf"), 0.0, tl.exp2(b_sink - b_log_sum))
            b_sum -= b_weight * b_delta
    tl.store(dsinks + i_head, tl.sum(b_sum, 0).to(dsinks.dtype.element_ty))
