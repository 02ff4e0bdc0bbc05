"""Before and behind the fused Hopper backward, in plain Triton: counts are cleared, and dQ's sums are rounded."""

import triton
import triton.language as tl

from ..tiles import HEAD_DIM


@triton.jit(do_not_specialize=["count"])
def attn_bwd_fused_begin(counts, count, SIZE: tl.constexpr):
    o = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    tl.store(counts + o, 0, mask=o < count)


@triton.jit(do_not_specialize=["first", "q_len", "tiles", "s_qb", "s_qh", "s_qn"])
def attn_bwd_fused_end(
    dq_sums,  # [batch, heads, tiles, HEAD_DIM / 32, 64, 32] float32
    added,  # [batch, heads, tiles]: how many items have added to a tile; where none has, it holds anything
    dq,  # written: [batch, heads, q_len, HEAD_DIM]
    scale,
    first,  # the place of the first query in its tile
    q_len,
    tiles,
    s_qb,  # strides of dq, in units of ALIGN numbers
    s_qh,
    s_qn,
    ALIGN: tl.constexpr,
):
    i_head, i_batch = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    i_tile = (i_batch * tl.num_programs(1) + i_head) * tiles + tl.program_id(0)
    o_m, o_d = tl.arange(0, 64)[:, None], tl.arange(0, HEAD_DIM)[None, :]
    p_sums = dq_sums + i_tile * (64 * HEAD_DIM) + (o_d // 32 * 2048 + o_m * 32 + o_d % 32)
    b_dq = tl.load(p_sums, mask=(o_m + o_d >= 0) & (tl.load(added + i_tile) > 0), other=0.0)  # [64, HEAD_DIM]
    row = tl.program_id(0) * 64 + o_m - first
    p_dq = dq + (i_batch * s_qb + i_head * s_qh + row.to(tl.int64) * s_qn) * ALIGN + o_d
    tl.store(p_dq, (b_dq * scale).to(dq.dtype.element_ty), mask=(row >= 0) & (row < q_len) & (o_d >= 0))
