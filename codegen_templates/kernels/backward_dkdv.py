"""Block-sparse attention, backward: dK and dV over the rows of a column.

A program takes one item of a table made by `items.py`: a tile of keys and the rows of one kind. Near rows are those
that the rule keeps near the diagonal, of all heads of a KV head, and keys are taken as they come. Strided rows are
those at the distances of one stride, of the heads that share it, and its columns are gathered to full tiles:
neighbours in a stride are read by the same rows. An item may be one of several equal parts of its rows.

What several items add to one column goes to slots of `parts`, which another kernel adds in a fixed order; what only
one does goes to dk and dv at once. Where lengths are known to the device alone there are no slots: the near items are
one launch and each stride's another, which adds to what is there. No two programs of a launch write the same numbers.
"""

import triton
import triton.language as tl

from .backward_item import add_item
from .rounds import columns_at
from .tiles import BLOCK, BLOCK_D, BLOCK_V, HEAD_DIM, SAME_DIMS, V_HEAD_DIM, clear, request

# fmt: off
DKDV_INTS = [
    "q_len", "kv_len", "q_start", "kv_start", "s_qb", "s_qh", "s_qn", "s_kb", "s_kh", "s_kn", "s_vb", "s_vh", "s_vn",
    "s_gb", "s_gh", "s_gn", "s_db", "s_dh", "s_dn", "s_lb", "s_lh", "s_items", "s_members", "slots", "kv_total",
]
# fmt: on


@triton.jit(do_not_specialize=DKDV_INTS)
def attn_bwd_dkdv(
    q,  # [batch, heads, q_len, HEAD_DIM], or packed [total_q, heads, HEAD_DIM] when IS_PACKED
    k,  # [batch, kv_heads, kv_len, HEAD_DIM], or packed likewise
    v,  # the same, of V_HEAD_DIM
    dout,  # as q, of V_HEAD_DIM
    dk,  # like k; float32 when a later launch adds to it
    dv,  # like v; with the strides of dk, or rows in the same places
    log_sum,  # [batch, heads, q_len], or [heads, total_q]
    delta,
    parts,  # [batch, slots, BLOCK * (HEAD_DIM + V_HEAD_DIM)] float32: dK, then dV, of a column
    items,  # [programs, s_items], and the members they name [.., s_members]: see `items.py`
    members,
    pattern,
    rows,
    q_starts,
    kv_starts,
    scale,  # times log2(e)
    q_len,
    kv_len,
    q_start,
    kv_start,
    s_qb,  # strides, in units of ALIGN numbers; those of log_sum and delta in numbers
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
    s_db,  # of dk and dv: in rows, where these are of different widths
    s_dh,
    s_dn,
    s_lb,
    s_lh,
    s_items,
    s_members,
    slots,
    kv_total,  # packed keys, of which some may belong to no sequence
    HAS_NEAR: tl.constexpr,  # whether there are items of near rows
    HAS_STRIDES: tl.constexpr,  # and of strided ones; these alone add to what is there
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ALIGN: tl.constexpr,
    IS_PACKED: tl.constexpr,
    IS_LOOKED_UP: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    i_batch = tl.program_id(2).to(tl.int64)
    q_first, kv_first, tiles = 0, 0, (kv_len + BLOCK_N - 1) // BLOCK_N
    if IS_PACKED:
        q_first, q_len, kv_first, kv_len = request(i_batch, q_starts, kv_starts, 0)
        q_start = kv_len - q_len
    q_stop = q_start + q_len
    kv_stop = kv_start + kv_len
    p_item = items + tl.program_id(0) * s_items
    is_stride = tl.load(p_item)
    p_members = members + tl.load(p_item + 1) * s_members
    i_kv = tl.load(p_members).to(tl.int64)
    j_first, _, o_first = columns_at(p_item, BLOCK_N)
    u_first = j_first * BLOCK + o_first
    if IS_PACKED and HAS_NEAR:
        o_n, m_n = tl.arange(0, BLOCK_N), tl.full([BLOCK_N], 1, tl.int1)
        OF_K: tl.constexpr = ALIGN if SAME_DIMS else HEAD_DIM
        OF_V: tl.constexpr = ALIGN if SAME_DIMS else V_HEAD_DIM
        o_k, s_k, i_tile = i_kv * s_dh * OF_K, s_dn * OF_K, u_first // BLOCK_N
        o_v, s_v = i_kv * s_dh * OF_V, s_dn * OF_V
        clear(dk + o_k, None, s_k, kv_starts, kv_total, i_tile, tiles, o_n, m_n, BLOCK_N, HEAD_DIM, BLOCK_D)
        clear(dv + o_v, None, s_v, kv_starts, kv_total, i_tile, tiles, o_n, m_n, BLOCK_N, V_HEAD_DIM, BLOCK_V)
    if u_first >= kv_stop:
        return

    # addresses: 64 bits to the first key, 32 from there
    i_key = kv_first + (u_first - kv_start).to(tl.int64)
    k += (i_batch * s_kb + i_kv * s_kh + i_key * s_kn) * ALIGN
    v += (i_batch * s_vb + i_kv * s_vh + i_key * s_vn) * ALIGN
    strides = (s_qb, s_qh, s_qn, s_gb, s_gh, s_gn, s_lb, s_lh)
    place = (i_batch * s_db + kv_first * s_dn, s_dh, s_dn, i_batch * slots, kv_start)
    if HAS_NEAR:  # noqa: SIM102 (what the kernel is compiled for, then what the item is)
        if is_stride == 0:
            add_item(
                q, k, v, dout, dk, dv, log_sum, delta, parts, pattern, rows, scale,
                p_item, p_members, q_first, q_start, q_stop, kv_stop, strides, (s_kn, s_vn), place,
                False, False, BLOCK_M, BLOCK_N, ALIGN, IS_PACKED, IS_LOOKED_UP, STAGES, PRECISION,
            )  # fmt: skip
    if HAS_STRIDES:  # noqa: SIM102
        if is_stride != 0:
            add_item(
                q, k, v, dout, dk, dv, log_sum, delta, parts, pattern, rows, scale,
                p_item, p_members, q_first, q_start, q_stop, kv_stop, strides, (s_kn, s_vn), place,
                True, not HAS_NEAR, BLOCK_M, BLOCK_N, ALIGN, IS_PACKED, False, STAGES, PRECISION,
            )  # fmt: skip
