"""Block-sparse attention, backward: where the sums of a tile of keys go, and the columns that several items add to."""

import triton
import triton.language as tl

from .tiles import BLOCK, BLOCK_D, BLOCK_V, HEAD_DIM, SAME_DIMS, V_HEAD_DIM, load_rows


@triton.jit
def add(p, b, m, IS_MORE: tl.constexpr):
    """Store b where m is true: added to what is there when it is more of the same."""
    if IS_MORE:
        b += tl.load(p, mask=m, other=0.0)
    tl.store(p, b.to(p.dtype.element_ty), mask=m)


@triton.jit
def store_sums(dk, dv, o_dk, o_dv, parts, p_slots, o_k, o_v, b_dk, b_dv, m_dk, m_dv, IS_MORE: tl.constexpr):
    """Store a tile where each of its columns belongs: in dk and dv, or in the slot of `parts` that p_slots names, o_k
    and o_v behind where its dK and dV begin."""
    if IS_MORE:
        add(dv + o_dv, b_dv, m_dv, True)
        add(dk + o_dk, b_dk, m_dk, True)
    else:
        slot = tl.load(p_slots)  # [BLOCK_N]
        m_own_dk, m_own_dv = m_dk & (slot < 0)[:, None], m_dv & (slot < 0)[:, None]
        add(dk + o_dk, b_dk, m_own_dk, False)
        add(dv + o_dv, b_dv, m_own_dv, False)
        if tl.max(slot, 0) >= 0:
            m_part_dk, m_part_dv = m_dk & (slot >= 0)[:, None], m_dv & (slot >= 0)[:, None]
            p_part = parts + slot.to(tl.int64)[:, None] * (BLOCK * (HEAD_DIM + V_HEAD_DIM))
            add(p_part + o_k, b_dk, m_part_dk, False)
            add(p_part + o_v + BLOCK * HEAD_DIM, b_dv, m_part_dv, False)


@triton.jit(do_not_specialize=["kv_start", "kv_stop", "slots", "s_db", "s_dh", "s_dn"])
def attn_bwd_sum(
    parts,  # [batch, slots, BLOCK * (HEAD_DIM + V_HEAD_DIM)] float32: dK, then dV, of a column, by one item
    summed,  # [columns, 4]: KV head, column, the first of its slots and how many it has
    dk,  # [batch, kv_heads, kv_len, HEAD_DIM]
    dv,  # [batch, kv_heads, kv_len, V_HEAD_DIM], with the strides of dk, or rows in the same places
    kv_start,
    kv_stop,
    slots,
    s_db,  # strides, in units of ALIGN numbers; in rows, where these are of different widths
    s_dh,
    s_dn,
    BLOCK_N: tl.constexpr,
    ALIGN: tl.constexpr,
):
    p_column = summed + tl.program_id(0) * 4
    i_kv, j = tl.load(p_column).to(tl.int64), tl.load(p_column + 1)
    first, count = tl.load(p_column + 2), tl.load(p_column + 3)
    i_batch = tl.program_id(2).to(tl.int64)
    o_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    o_d, o_dv = tl.arange(0, BLOCK_D)[None, :], tl.arange(0, BLOCK_V)[None, :]
    u = j * BLOCK + o_n  # [BLOCK_N]
    m_k, m_v = (u < kv_stop)[:, None] & (o_d < HEAD_DIM), (u < kv_stop)[:, None] & (o_dv < V_HEAD_DIM)
    p_part = parts + (i_batch * slots + first) * (BLOCK * (HEAD_DIM + V_HEAD_DIM))
    p_k = p_part + o_n[:, None] * HEAD_DIM + o_d
    p_v = p_part + BLOCK * HEAD_DIM + o_n[:, None] * V_HEAD_DIM + o_dv
    b_dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    b_dv = tl.zeros([BLOCK_N, BLOCK_V], tl.float32)
    for _ in range(count):
        b_dk += tl.load(p_k, mask=m_k, other=0.0)
        if SAME_DIMS:  # an address less
            b_dv += tl.load(p_k + BLOCK * HEAD_DIM, mask=m_v, other=0.0)
        else:
            b_dv += tl.load(p_v, mask=m_v, other=0.0)
            p_v += BLOCK * (HEAD_DIM + V_HEAD_DIM)
        p_k += BLOCK * (HEAD_DIM + V_HEAD_DIM)
    o_row = i_batch * s_db + i_kv * s_dh + (u - kv_start).to(tl.int64)[:, None] * s_dn
    add(dk + (o_row * (ALIGN if SAME_DIMS else HEAD_DIM) + o_d), b_dk, m_k, False)
    add(dv + (o_row * (ALIGN if SAME_DIMS else V_HEAD_DIM) + o_dv), b_dv, m_v, False)


@triton.jit(do_not_specialize=["kv_len", "tiles", "s_xb", "s_xh", "s_xn", "s_yb", "s_yh", "s_yn"])
def attn_bwd_round(
    x,  # [batch, heads, rows, V_HEAD_DIM if IS_V else HEAD_DIM] float32
    y,  # written: the same numbers in its own type
    kv_len,
    tiles,  # of rows
    s_xb,
    s_xh,
    s_xn,
    s_yb,
    s_yh,
    s_yn,
    IS_V: tl.constexpr,
    ROWS: tl.constexpr,
):
    DIM: tl.constexpr = V_HEAD_DIM if IS_V else HEAD_DIM
    WIDTH: tl.constexpr = BLOCK_V if IS_V else BLOCK_D
    i_batch = (tl.program_id(0) // tiles).to(tl.int64)
    i_head = tl.program_id(1).to(tl.int64)
    o_m = (tl.program_id(0) % tiles * ROWS + tl.arange(0, ROWS)).to(tl.int64)  # [ROWS]
    m_m = o_m < kv_len
    b_x = load_rows(x + i_batch * s_xb + i_head * s_xh, (o_m * s_xn)[:, None], m_m, DIM, WIDTH)  # [ROWS, WIDTH]
    o_d = tl.arange(0, WIDTH)[None, :]
    p_y = y + i_batch * s_yb + i_head * s_yh + (o_m * s_yn)[:, None] + o_d
    tl.store(p_y, b_x.to(y.dtype.element_ty), mask=m_m[:, None] & (o_d < DIM))
