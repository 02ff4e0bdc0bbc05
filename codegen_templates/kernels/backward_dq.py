"""Block-sparse attention, backward: dQ over the columns of a row, in the tiles of the forward kernel."""

import triton
import triton.language as tl

from .backward_prepare import weights
from .tiles import (
    BLOCK,
    BLOCK_D,
    BLOCK_V,
    HEAD_DIM,
    LN_2,
    V_HEAD_DIM,
    clear_queries,
    columns_of,
    edge,
    late_zero,
    load_keys,
    load_rows,
    locate,
    request,
    tile_of,
)

# fmt: off
DQ_INTS = [
    "q_len", "kv_len", "q_start", "kv_start", "s_qb", "s_qh", "s_qn", "s_kb", "s_kh", "s_kn", "s_vb", "s_vh", "s_vn",
    "s_gb", "s_gh", "s_gn", "s_ob", "s_oh", "s_on", "s_lb", "s_lh", "q_total",
]
# fmt: on


@triton.jit(do_not_specialize=DQ_INTS)
def attn_bwd_dq(
    q,  # [batch, heads, q_len, HEAD_DIM], or packed [total_q, heads, HEAD_DIM] when IS_PACKED
    k,  # [batch, kv_heads, kv_len, HEAD_DIM], or packed likewise
    v,  # the same, of V_HEAD_DIM
    dout,  # as q, of V_HEAD_DIM
    dq,
    log_sum,  # [batch, heads, q_len], or [heads, total_q]
    delta,
    groups,  # as of the forward kernel, and what follows too
    pattern,
    columns,
    q_starts,
    kv_starts,
    scale,
    q_len,
    kv_len,
    q_start,
    kv_start,
    s_qb,
    s_qh,
    s_qn,
    s_kb,
    s_kh,
    s_kn,
    s_vb,
    s_vh,
    s_vn,
    s_gb,
    s_gh,
    s_gn,
    s_ob,
    s_oh,
    s_on,
    s_lb,
    s_lh,
    q_total,
    BLOCK_Q: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ALIGN: tl.constexpr,
    IS_PACKED: tl.constexpr,
    IS_LOOKED_UP: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    i_batch = tl.program_id(2).to(tl.int64)
    q_first, kv_first = 0, 0
    if IS_PACKED:
        q_first, q_len, kv_first, kv_len = request(i_batch, q_starts, kv_starts, 0)
        q_start = kv_len - q_len
    q_stop = q_start + q_len
    kv_stop = kv_start + kv_len
    if IS_PACKED:
        s_h, s_n, i_tile, tiles = s_oh * ALIGN, s_on * ALIGN, tl.program_id(0), tl.num_programs(0)
        clear_queries(
            dq, s_h, s_n, None, 0, groups, q_starts, q_total, i_tile, tiles, BLOCK_Q, BLOCK_H, HEAD_DIM, BLOCK_D
        )

    i_tile = (q_stop - (q_start & -BLOCK_Q) + BLOCK_Q - 1) // BLOCK_Q - 1 - tl.program_id(0)
    if (i_tile < 0) | (q_len == 0):
        return
    t_base, o_m, o_t, i_head, m_q, i_kv, p_group = tile_of(i_tile, groups, q_start, q_stop, BLOCK_Q, BLOCK_H)

    t_first = tl.maximum(t_base, q_start)
    t_last = tl.minimum(t_base + BLOCK_Q, q_stop) - 1
    pattern += tl.load(p_group + 1)
    n_far, n_slots, places, rule = columns_of(pattern, columns, t_first, t_last, kv_start, kv_stop)
    far_tiles = n_far * BLOCK // BLOCK_N
    all_tiles = (n_slots * BLOCK + BLOCK_N - 1) // BLOCK_N

    # addresses: 64 bits to the tile's first row, 32 from there
    i_row = q_first + (t_base - q_start).to(tl.int64)
    o_row = o_m % BLOCK_Q
    p_q = q + (i_batch * s_qb + i_head * s_qh + i_row * s_qn) * ALIGN + o_row * (s_qn * ALIGN)
    p_dout = dout + (i_batch * s_gb + i_head * s_gh + i_row * s_gn) * ALIGN + o_row * (s_gn * ALIGN)
    o_sum = i_batch * s_lb + i_head * s_lh + i_row + o_row
    b_q = load_rows(p_q[:, None], 0, m_q, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    b_dout = load_rows(p_dout[:, None], 0, m_q, V_HEAD_DIM, BLOCK_V)  # [BLOCK_M, BLOCK_V]
    b_log_sum = tl.load(log_sum + o_sum, mask=m_q, other=float("inf"))[:, None]  # [BLOCK_M, 1]
    b_delta = tl.load(delta + o_sum, mask=m_q, other=0.0)[:, None]  # [BLOCK_M, 1]
    k += (i_batch * s_kb + i_kv * s_kh + kv_first * s_kn) * ALIGN
    v += (i_batch * s_vb + i_kv * s_vh + kv_first * s_vn) * ALIGN

    b_dq = tl.zeros([BLOCK_Q * BLOCK_H, BLOCK_D], tl.float32)
    last = tl.maximum(far_tiles - 1, 0)
    if IS_LOOKED_UP:
        ahead = locate(0, places, kv_start, None, 0, BLOCK, BLOCK_N)
    for tile in tl.range(0, far_tiles, num_stages=STAGES):
        if IS_LOOKED_UP:
            row = ahead
            ahead = locate(tl.minimum(tile + 1, last), places, kv_start, None, 0, BLOCK, BLOCK_N)
        else:
            row = locate(tile, places, kv_start, None, 0, BLOCK, BLOCK_N)
        b_k = load_keys(k, row, 0, s_kn * ALIGN, None, 0, BLOCK, BLOCK_N, HEAD_DIM, BLOCK_D)
        b_v = load_keys(v, row, 0, s_vn * ALIGN, None, 0, BLOCK, BLOCK_N, V_HEAD_DIM, BLOCK_V)
        _, b_ds = weights(b_q, b_k, b_v, b_dout, b_log_sum, b_delta, None, scale, PRECISION)
        b_dq = tl.dot(b_ds.to(b_k.dtype), b_k, b_dq, input_precision=PRECISION)
    late = 0
    for tile in tl.range(far_tiles, all_tiles, num_stages=2):
        late = late_zero(tile)
        row, m_n, m_keep = edge(
            tile, n_slots, places, rule, o_t, t_first, t_last, kv_start, kv_stop, None, 0, BLOCK, BLOCK_Q, BLOCK_N
        )
        b_k = load_keys(k, row, 0, s_kn * ALIGN, m_n, 0, BLOCK, BLOCK_N, HEAD_DIM, BLOCK_D)
        b_v = load_keys(v, row, 0, s_vn * ALIGN, m_n, 0, BLOCK, BLOCK_N, V_HEAD_DIM, BLOCK_V)
        _, b_ds = weights(b_q, b_k, b_v, b_dout, b_log_sum, b_delta, m_keep, scale, PRECISION)
        b_dq = tl.dot(b_ds.to(b_k.dtype), b_k, b_dq, input_precision=PRECISION)

    o_d = tl.arange(0, BLOCK_D)[None, :]
    o_row = o_m % BLOCK_Q + late  # the rows once more, see late_zero
    o_t = t_base + o_row
    m_q = (o_t >= q_start) & (o_t < q_stop)
    if BLOCK_H > 1:
        m_q &= i_head >= 0
    p_dq = dq + (i_batch * s_ob + i_head * s_oh + i_row * s_on) * ALIGN + o_row * (s_on * ALIGN)
    b_dq = (b_dq * (scale * LN_2)).to(dq.dtype.element_ty)
    tl.store(p_dq[:, None] + o_d, b_dq, mask=m_q[:, None] & (o_d < HEAD_DIM))
