"""Block-sparse attention, backward: what one item of a tile of keys and their rows adds to dK and dV."""

import triton
import triton.language as tl

from .backward_prepare import weights
from .backward_sum import store_sums
from .rounds import columns_at, keeps_in, keys_at, locate_rows, portion, row_in, slots_of
from .tiles import (
    BLOCK,
    BLOCK_BITS,
    BLOCK_D,
    BLOCK_V,
    HEAD_DIM,
    LN_2,
    SAME_DIMS,
    V_HEAD_DIM,
    late_zero,
    load_keys,
    load_rows,
    runs,
)

# --- constants: facts of the pattern, set by patterncc ---
IS_CAUSAL = tl.constexpr(True)
# --- end constants ---


@triton.jit
def of_head(head, q, dout, log_sum, delta, strides, q_first, o_m, ALIGN: tl.constexpr):
    """(q, dout, log_sum, delta, o_head): pointers to the rows of a head in q and dout; log_sum and delta as given; and
    the offset of its rows in these, o_m further."""
    s_qb, s_qh, s_qn, s_gb, s_gh, s_gn, s_lb, s_lh = strides
    i_head, i_batch = head.to(tl.int64), (tl.program_id(2) + late_zero(head)).to(tl.int64)
    q += (i_batch * s_qb + i_head * s_qh + q_first * s_qn) * ALIGN
    dout += (i_batch * s_gb + i_head * s_gh + q_first * s_gn) * ALIGN
    return q, dout, log_sum, delta, i_batch * s_lb + i_head * s_lh + q_first + o_m


@triton.jit
def add_rows(
    p_rows,
    i_row,
    m_row,
    s_qn,
    s_gn,
    b_k,
    b_v,
    m_keep,
    b_dk,
    b_dv,
    scale,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """(b_dk, b_dv) with a tile of BLOCK_M rows added, whose runs begin at i_row; a far tile has no masks."""
    p_q, p_dout, log_sum, delta, o_head = p_rows
    b_q = load_keys(p_q, i_row, 0, s_qn, m_row, 0, BLOCK, BLOCK_M, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    b_dout = load_keys(p_dout, i_row, 0, s_gn, m_row, 0, BLOCK, BLOCK_M, V_HEAD_DIM, BLOCK_V)  # [BLOCK_M, BLOCK_V]
    other: tl.constexpr = None if m_row is None else 0.0
    b_log_sum = tl.load(log_sum + o_head + i_row, mask=m_row, other=other)[None, :]  # [1, BLOCK_M]
    b_delta = tl.load(delta + o_head + i_row, mask=m_row, other=other)[None, :]
    # [BLOCK_N, BLOCK_M]
    b_p, b_ds = weights(b_k, b_q, b_dout, b_v, b_log_sum, b_delta, m_keep, scale, PRECISION)
    b_dv = tl.dot(b_p.to(b_dout.dtype), b_dout, b_dv, input_precision=PRECISION)
    return tl.dot(b_ds.to(b_q.dtype), b_q, b_dk, input_precision=PRECISION), b_dv


@triton.jit
def add_item(
    q, k, v, dout, dk, dv, log_sum, delta, parts, pattern, rows, scale,
    p_item, p_members, q_first, q_start, q_stop, kv_stop, strides, key_strides, place,
    IS_STRIDE: tl.constexpr, IS_MORE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, ALIGN: tl.constexpr,
    IS_PACKED: tl.constexpr, IS_LOOKED_UP: tl.constexpr, STAGES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add one item to dK and dV; k and v point to its first key."""
    s_kn, s_vn = key_strides
    s_qn, s_gn = strides[2], strides[5]
    j_first, every, o_first = columns_at(p_item, BLOCK_N)
    u_first = j_first * BLOCK + o_first
    _, u = keys_at(o_first // BLOCK_N, j_first, every, BLOCK_N)
    o_key = (u - u_first)[:, None]  # [BLOCK_N, 1]
    b_k = load_rows(k, o_key * (s_kn * ALIGN), u < kv_stop, HEAD_DIM, BLOCK_D)  # [BLOCK_N, BLOCK_D]
    b_v = load_rows(v, o_key * (s_vn * ALIGN), u < kv_stop, V_HEAD_DIM, BLOCK_V)  # [BLOCK_N, BLOCK_V]

    b_dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    b_dv = tl.zeros([BLOCK_N, BLOCK_V], tl.float32)
    o_m = tl.arange(0, BLOCK_M) & (BLOCK - 1)
    head = 0
    n_members = tl.load(p_members + 1)

    EDGE_STAGES: tl.constexpr = 1 if IS_PACKED else min(STAGES, 2)  # finding packed sequences takes registers
    # far tiles of all heads, then edge tiles: what either needs holds no registers during the other
    for member in tl.range(0, n_members, disable_licm=True):
        head, n_far, n_slots, places, rule = slots_of(
            p_members + 2 + 2 * member, p_item, pattern, rows, q_start, q_stop, kv_stop, IS_STRIDE, BLOCK_N
        )
        p_rows = of_head(head, q, dout, log_sum, delta, strides, q_first, o_m, ALIGN)
        far_tiles = n_far * BLOCK // BLOCK_M
        last = tl.maximum(far_tiles - 1, 0)
        start, stop = portion(far_tiles, p_item, head, IS_MORE)
        if IS_LOOKED_UP:  # one tile ahead: else the loads would wait for the address
            ahead = locate_rows(tl.minimum(start, last), places, q_start, IS_STRIDE, BLOCK_M)
        for tile_m in tl.range(start, stop, num_stages=STAGES):
            if IS_LOOKED_UP:
                i_row = ahead
                ahead = locate_rows(tl.minimum(tile_m + 1, last), places, q_start, IS_STRIDE, BLOCK_M)
            else:
                i_row = locate_rows(tile_m, places, q_start, IS_STRIDE, BLOCK_M)
            b_dk, b_dv = add_rows(
                p_rows, i_row, None, s_qn * ALIGN, s_gn * ALIGN, b_k, b_v, None, b_dk, b_dv, scale, PRECISION, BLOCK_M
            )

    for member in tl.range(0, n_members, disable_licm=True):
        head, n_far, n_slots, places, rule = slots_of(
            p_members + 2 + 2 * member, p_item, pattern, rows, q_start, q_stop, kv_stop, IS_STRIDE, BLOCK_N
        )
        p_rows = of_head(head, q, dout, log_sum, delta, strides, q_first, o_m, ALIGN)
        far_tiles = n_far * BLOCK // BLOCK_M
        start, stop = portion((n_slots * BLOCK + BLOCK_M - 1) // BLOCK_M - far_tiles, p_item, head, IS_MORE)
        j_first, every, o_first = columns_at(p_item + late_zero(head), BLOCK_N)
        _, u = keys_at(o_first // BLOCK_N, j_first, every, BLOCK_N)
        for tile_m in tl.range(far_tiles + start, far_tiles + stop, num_stages=EDGE_STAGES):
            slot, o_run = runs(tile_m, BLOCK, BLOCK_M)
            i = row_in(slot, places, IS_STRIDE, False)
            t_run = i * BLOCK + o_run
            i_row = t_run - q_start
            t = t_run + o_m  # [BLOCK_M]
            slot += tl.zeros([BLOCK_M], tl.int32)
            i += tl.zeros([BLOCK_M], tl.int32)
            m_m = (slot < n_slots) & (t >= q_start) & (t < q_stop)  # [BLOCK_M]
            j = u >> BLOCK_BITS  # [BLOCK_N]
            # [BLOCK_N, BLOCK_M]
            m_keep = keeps_in(slot[None, :], i[None, :], j[:, None], t[None, :], u[:, None], rule, IS_STRIDE)
            if IS_CAUSAL and not IS_PACKED:  # rows that are not there stand before all keys: one mask less
                m_keep &= u[:, None] <= tl.where(m_m, t, -1)[None, :]
            else:
                m_keep &= m_m[None, :]
                if IS_CAUSAL:
                    m_keep &= u[:, None] <= t[None, :]
            b_dk, b_dv = add_rows(
                p_rows, i_row, m_m, s_qn * ALIGN, s_gn * ALIGN, b_k, b_v, m_keep, b_dk, b_dv, scale, PRECISION, BLOCK_M
            )

    p_item += late_zero(head)  # the keys once more
    o_batch, s_dh, s_dn, first_slot, kv_start = place
    j_first, every, o_first = columns_at(p_item, BLOCK_N)
    u_first = j_first * BLOCK + o_first
    _, u = keys_at(o_first // BLOCK_N, j_first, every, BLOCK_N)
    i_kv = tl.load(p_members + late_zero(head)).to(tl.int64)
    OF_K: tl.constexpr = ALIGN if SAME_DIMS else HEAD_DIM
    OF_V: tl.constexpr = ALIGN if SAME_DIMS else V_HEAD_DIM
    o_d, o_v = tl.arange(0, BLOCK_D)[None, :], tl.arange(0, BLOCK_V)[None, :]
    m_dk, m_dv = (u < kv_stop)[:, None] & (o_d < HEAD_DIM), (u < kv_stop)[:, None] & (o_v < V_HEAD_DIM)
    o_first = o_batch + i_kv * s_dh + (u_first - kv_start).to(tl.int64) * s_dn
    o_dk, o_dv = (u - u_first)[:, None] * (s_dn * OF_K) + o_d, (u - u_first)[:, None] * (s_dn * OF_V) + o_v
    parts += first_slot * (BLOCK * (HEAD_DIM + V_HEAD_DIM))
    o_part = (u & (BLOCK - 1))[:, None]
    o_k, o_v = o_part * HEAD_DIM + o_d, o_part * V_HEAD_DIM + o_v
    p_slots = p_item + 9 + (tl.arange(0, BLOCK_N) >> BLOCK_BITS)
    dk += o_first * OF_K
    dv += o_first * OF_V
    store_sums(dk, dv, o_dk, o_dv, parts, p_slots, o_k, o_v, b_dk * (scale * LN_2), b_dv, m_dk, m_dv, IS_MORE)
