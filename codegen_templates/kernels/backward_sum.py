"""Block-sparse attention, backward: where the sums of a tile of keys go, and the columns that several items add to."""

import triton
import triton.language as tl

from .tiles import BLOCK, BLOCK_D, HEAD_DIM


@triton.jit
def add(p, b, m, IS_MORE: tl.constexpr):
    """Store b where m is true: added to what is there when it is more of the same."""
    if IS_MORE:
        b += tl.load(p, mask=m, other=0.0)
    tl.store(p, b.to(p.dtype.element_ty), mask=m)


@triton.jit
def store_sums(dk, dv, o_out, parts, p_slots, o_part, b_dk, b_dv, m_out, IS_MORE: tl.constexpr):
    """Store a tile where each of its columns belongs: in dk and dv, or in the slot of `parts` that p_slots names."""
    if IS_MORE:
        add(dv + o_out, b_dv, m_out, True)
        add(dk + o_out, b_dk, m_out, True)
    else:
        slot = tl.load(p_slots)  # [rows]
        m_own = m_out & (slot < 0)[:, None]
        add(dk + o_out, b_dk, m_own, False)
        add(dv + o_out, b_dv, m_own, False)
        if tl.max(slot, 0) >= 0:
            m_part = m_out & (slot >= 0)[:, None]
            p_part = parts + slot.to(tl.int64)[:, None] * (2 * BLOCK * HEAD_DIM) + o_part
            add(p_part, b_dk, m_part, False)
            add(p_part + BLOCK * HEAD_DIM, b_dv, m_part, False)


@triton.jit(do_not_specialize=["kv_start", "kv_stop", "slots", "s_db", "s_dh", "s_dn"])
def attn_bwd_sum(
    parts,  # [batch, slots, 2, BLOCK, HEAD_DIM] float32: dK and dV of a column, by one item
    summed,  # [columns, 4]: KV head, column, the first of its slots and how many it has
    dk,  # [batch, kv_heads, kv_len, HEAD_DIM]
    dv,  # with the strides of dk
    kv_start,
    kv_stop,
    slots,
    s_db,  # strides, in units of ALIGN numbers
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
    o_d = tl.arange(0, BLOCK_D)[None, :]
    u = j * BLOCK + o_n
    m = (u < kv_stop)[:, None] & (o_d < HEAD_DIM)
    p_part = parts + (i_batch * slots + first) * (2 * BLOCK * HEAD_DIM) + o_n[:, None] * HEAD_DIM + o_d
    b_dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    b_dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for _ in range(count):
        b_dk += tl.load(p_part, mask=m, other=0.0)
        b_dv += tl.load(p_part + BLOCK * HEAD_DIM, mask=m, other=0.0)
        p_part += 2 * BLOCK * HEAD_DIM
    o_out = (i_batch * s_db + i_kv * s_dh + (u - kv_start).to(tl.int64)[:, None] * s_dn) * ALIGN + o_d
    add(dk + o_out, b_dk, m, False)
    add(dv + o_out, b_dv, m, False)
