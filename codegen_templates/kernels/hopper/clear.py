"""Packed rows of no sequence, which the kernels of this family leave: a kernel of plain Triton clears them."""

import triton
import triton.language as tl

from ..tiles import BLOCK_V, V_HEAD_DIM, clear_outside


@triton.jit(do_not_specialize=["requests", "total", "s_h", "s_n", "s_lh"])
def attn_clear(
    x,  # [total, heads, V_HEAD_DIM], packed: the output, or a gradient where all are as wide
    lse,  # [heads, total], or None
    starts,  # [requests + 1] where each one's rows begin
    requests,
    total,
    s_h,  # strides of x
    s_n,
    s_lh,
    ROWS: tl.constexpr,
):
    i_head = tl.program_id(1).to(tl.int64)
    before, behind = tl.load(starts), tl.load(starts + requests)
    o_m = tl.arange(0, ROWS)
    m_all = tl.full([ROWS], 1, tl.int1)
    p_lse = None if lse is None else lse + i_head * s_lh
    clear_outside(
        x + i_head * s_h, p_lse, s_n, before, behind, total, tl.program_id(0), tl.num_programs(0), o_m, m_all,
        ROWS, V_HEAD_DIM, BLOCK_V,
    )  # fmt: skip
