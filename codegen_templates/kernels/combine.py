"""Merge partial attention over key ranges: the sum of the parts, each weighted by exp(its LSE - the LSE of all)."""

import triton
import triton.language as tl

from .tiles import BLOCK_V, V_HEAD_DIM


@triton.jit(do_not_specialize=["splits", "s_pn", "s_ph", "s_ps", "s_ls", "s_lh", "s_on", "s_oh", "s_wh"])
def attn_combine(
    parts,  # [splits, rows, heads, V_HEAD_DIM] float32
    lses,  # [splits, heads, rows]
    out,  # [rows, heads, V_HEAD_DIM]
    lse,  # [heads, rows]
    splits,
    s_ps,
    s_pn,
    s_ph,
    s_ls,
    s_lh,
    s_on,
    s_oh,
    s_wh,
    SPLITS: tl.constexpr,  # a power of two, not below splits
):
    i_row = tl.program_id(0).to(tl.int64)
    i_head = tl.program_id(1).to(tl.int64)
    o_s = tl.arange(0, SPLITS)
    o_d = tl.arange(0, BLOCK_V)
    m_s = o_s < splits
    b_lse = tl.load(lses + o_s * s_ls + i_head * s_lh + i_row, mask=m_s, other=float("-inf"))  # [SPLITS]
    most = tl.max(b_lse, 0)
    base = tl.where(most == float("-inf"), 0.0, most)  # nothing was kept anywhere
    b_weight = tl.exp(b_lse - base)
    total = tl.sum(b_weight, 0)
    m_s &= b_lse != float("-inf")  # a part without keys adds nothing, whatever it holds
    p_part = parts + o_s[:, None] * s_ps + i_row * s_pn + i_head * s_ph + o_d[None, :]
    b_part = tl.load(p_part, mask=m_s[:, None] & (o_d < V_HEAD_DIM)[None, :], other=0.0)  # [SPLITS, BLOCK_V]
    b_out = tl.sum(b_part * b_weight[:, None], 0) / tl.where(total == 0.0, 1.0, total)
    tl.store(out + i_row * s_on + i_head * s_oh + o_d, b_out.to(out.dtype.element_ty), mask=o_d < V_HEAD_DIM)
    tl.store(lse + i_head * s_wh + i_row, base + tl.log(total))
