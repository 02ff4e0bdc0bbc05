"""Block-sparse attention, backward: dK and dV over the rows of a column.

They are owned by tiles of keys, in rounds, so that no two programs of a launch add to the same numbers and the order of
all sums is fixed. Round 0 takes keys as they come and adds what the rule keeps near the diagonal, for all heads of a KV
head. Every later round takes the columns of one stride, gathered to full tiles, and the rows at the stride's distances:
neighbours in a stride are read by the same rows.
"""

import triton
import triton.language as tl

from .backward_prepare import weights
from .index_map import progression
from .rounds import keeps_in, keys_at, locate_rows, row_in, slots_of
from .row_map import stride
from .tiles import BLOCK, BLOCK_BITS, BLOCK_D, HEAD_DIM, LN_2, clear, load_keys, load_rows, request, runs

# --- constants: facts of the pattern, set by patterncc ---
IS_CAUSAL = tl.constexpr(False)
# --- end constants ---


@triton.jit
def of_head(head, q, dout, log_sum, delta, s_qh, s_gh, s_lh, o_m, ALIGN: tl.constexpr):
    """Where the rows of a head lie in q and in dout; log_sum and delta, and where in them its rows lie, o_m further."""
    i_head = head.to(tl.int64)
    return q + i_head * s_qh * ALIGN, dout + i_head * s_gh * ALIGN, log_sum, delta, i_head * s_lh + o_m


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
    """Add a tile of rows, whose runs begin at i_row, to dK and dV; without masks when it is far."""
    p_q, p_dout, log_sum, delta, o_head = p_rows
    b_q = load_keys(p_q, i_row, 0, s_qn, m_row, 0, BLOCK, BLOCK_M)
    b_dout = load_keys(p_dout, i_row, 0, s_gn, m_row, 0, BLOCK, BLOCK_M)
    other: tl.constexpr = None if m_row is None else 0.0
    b_log_sum = tl.load(log_sum + o_head + i_row, mask=m_row, other=other)[None, :]
    b_delta = tl.load(delta + o_head + i_row, mask=m_row, other=other)[None, :]
    b_p, b_ds = weights(b_k, b_q, b_dout, b_v, b_log_sum, b_delta, m_keep, scale, PRECISION)
    b_dv = tl.dot(b_p.to(b_dout.dtype), b_dout, b_dv, input_precision=PRECISION)
    return tl.dot(b_ds.to(b_q.dtype), b_q, b_dk, input_precision=PRECISION), b_dv


@triton.jit
def add(p, b, m, IS_MORE: tl.constexpr):
    """Store b where m is true: added to what is there when it is more of the same."""
    if IS_MORE:
        b += tl.load(p, mask=m, other=0.0)
    tl.store(p, b.to(p.dtype.element_ty), mask=m)


# fmt: off
DKDV_INTS = [
    "q_len", "kv_len", "q_start", "kv_start", "s_qb", "s_qh", "s_qn", "s_kb", "s_kh", "s_kn", "s_vb", "s_vh", "s_vn",
    "s_gb", "s_gh", "s_gn", "s_db", "s_dh", "s_dn", "s_lb", "s_lh", "s_members", "kv_total",
]
# fmt: on


@triton.jit(do_not_specialize=DKDV_INTS)
def attn_bwd_dkdv_bigbird(
    q,  # [batch, heads, q_len, HEAD_DIM], or packed [total_q, heads, HEAD_DIM] when IS_PACKED
    k,  # [batch, kv_heads, kv_len, HEAD_DIM], or packed likewise
    v,
    dout,  # like q
    dk,  # like k; float32 when there are several rounds
    dv,  # with the strides of dk
    log_sum,  # [batch, heads, q_len], or [heads, total_q]
    delta,
    members,  # [programs, s_members]: KV head, number of heads, and of each the head and its class's place in `pattern`
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
    s_db,
    s_dh,
    s_dn,
    s_lb,
    s_lh,
    s_members,
    kv_total,  # packed keys, of which some may belong to no sequence
    ROUND: tl.constexpr,
    BLOCK_M: tl.constexpr,
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
    p_members = members + tl.program_id(1) * s_members
    i_kv = tl.load(p_members).to(tl.int64)
    if IS_PACKED and not ROUND:
        o_n, m_n = tl.arange(0, BLOCK_N), tl.full([BLOCK_N], 1, tl.int1)
        o_head, s_n, i_tile, tiles = i_kv * s_dh * ALIGN, s_dn * ALIGN, tl.program_id(0), tl.num_programs(0)
        clear(dk + o_head, None, s_n, kv_starts, kv_total, i_tile, tiles, o_n, m_n, BLOCK_N)
        clear(dv + o_head, None, s_n, kv_starts, kv_total, i_tile, tiles, o_n, m_n, BLOCK_N)

    # this tile's keys: the first columns are read by most rows, so they go first
    j_base = kv_start >> BLOCK_BITS
    j_stop = (kv_stop + BLOCK - 1) >> BLOCK_BITS
    every = 1
    if ROUND:
        d_low, d_high, every, residue, sink = stride(pattern + tl.load(p_members + 3), ROUND)
        j_base, _ = progression(tl.maximum(j_base, sink), j_stop, every, residue)
    x = tl.program_id(0) * BLOCK_N
    j_first = j_base + (x >> BLOCK_BITS) * every
    j_last = tl.minimum(j_base + ((x + BLOCK_N - 1) >> BLOCK_BITS) * every, j_stop - 1)
    if j_first >= j_stop:
        return
    # addresses: 64 bits to the first key, 32 from there
    u_first = j_first * BLOCK + (x & (BLOCK - 1))
    i_key = kv_first + (u_first - kv_start).to(tl.int64)
    k += (i_batch * s_kb + i_kv * s_kh + i_key * s_kn) * ALIGN
    v += (i_batch * s_vb + i_kv * s_vh + i_key * s_vn) * ALIGN
    _, u = keys_at(tl.program_id(0), j_base, every, BLOCK_N)
    o_key = (u - u_first)[:, None]
    b_k = load_rows(k, o_key * (s_kn * ALIGN), u < kv_stop)  # [BLOCK_N, BLOCK_D]
    b_v = load_rows(v, o_key * (s_vn * ALIGN), u < kv_stop)

    # the rows that may keep them: from i_whole to i_full they are whole, and past all of the keys
    i_first = q_start >> BLOCK_BITS
    i_whole = (q_start + BLOCK - 1) >> BLOCK_BITS
    i_full = q_stop >> BLOCK_BITS
    i_stop = (q_stop + BLOCK - 1) >> BLOCK_BITS
    if IS_CAUSAL:
        i_first = tl.maximum(i_first, j_first)
        i_whole = tl.maximum(i_whole, j_last + 1)
    if ROUND:
        i_first = tl.maximum(i_first, j_first + d_low)
        i_whole = tl.maximum(i_whole, j_last + d_low)
        i_full = tl.minimum(i_full, j_first + d_high)
        i_stop = tl.minimum(i_stop, j_last + d_high)

    q += (i_batch * s_qb + q_first * s_qn) * ALIGN
    dout += (i_batch * s_gb + q_first * s_gn) * ALIGN
    log_sum += i_batch * s_lb + q_first
    delta += i_batch * s_lb + q_first
    b_dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    b_dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    o_m = tl.arange(0, BLOCK_M) & (BLOCK - 1)
    if not ROUND:
        d_low, d_high = 0, 0
    bounds = (j_first, j_last, i_first, i_whole, i_full, i_stop, d_low, d_high)
    head = 0
    n_members = tl.load(p_members + 1)

    # far tiles of all heads, then edge tiles: what either needs holds no registers during the other. What no head
    # changes holds none either, but is worked out for each: beside two accumulators there is no room
    for member in tl.range(0, n_members, disable_licm=True):
        head, n_far, n_slots, places, rule = slots_of(p_members + 2 + 2 * member, pattern, rows, bounds, ROUND)
        p_rows = of_head(head, q, dout, log_sum, delta, s_qh, s_gh, s_lh, o_m, ALIGN)
        far_tiles = n_far * BLOCK // BLOCK_M
        last = tl.maximum(far_tiles - 1, 0)
        if IS_LOOKED_UP:  # one tile ahead: else the loads would wait for the address
            ahead = locate_rows(0, places, q_start, ROUND, BLOCK_M)
        for tile in tl.range(0, far_tiles, num_stages=STAGES):
            if IS_LOOKED_UP:
                i_row = ahead
                ahead = locate_rows(tl.minimum(tile + 1, last), places, q_start, ROUND, BLOCK_M)
            else:
                i_row = locate_rows(tile, places, q_start, ROUND, BLOCK_M)
            b_dk, b_dv = add_rows(
                p_rows, i_row, None, s_qn * ALIGN, s_gn * ALIGN, b_k, b_v, None, b_dk, b_dv, scale, PRECISION, BLOCK_M
            )

    j, u = keys_at(tl.program_id(0) + (head >> 31), j_base, every, BLOCK_N)
    for member in tl.range(0, n_members, disable_licm=True):
        head, n_far, n_slots, places, rule = slots_of(p_members + 2 + 2 * member, pattern, rows, bounds, ROUND)
        p_rows = of_head(head, q, dout, log_sum, delta, s_qh, s_gh, s_lh, o_m, ALIGN)
        all_tiles = (n_slots * BLOCK + BLOCK_M - 1) // BLOCK_M
        for tile in tl.range(n_far * BLOCK // BLOCK_M, all_tiles, num_stages=2):
            slot, o_run = runs(tile, BLOCK, BLOCK_M)
            i = row_in(slot, places, ROUND > 0, False)
            t_run = i * BLOCK + o_run
            i_row = t_run - q_start
            t = t_run + o_m
            slot += tl.zeros([BLOCK_M], tl.int32)
            i += tl.zeros([BLOCK_M], tl.int32)
            m_m = (slot < n_slots) & (t >= q_start) & (t < q_stop)
            m_keep = keeps_in(slot[None, :], i[None, :], j[:, None], t[None, :], u[:, None], rule, ROUND > 0)
            m_keep &= m_m[None, :]
            if IS_CAUSAL:
                m_keep &= u[:, None] <= t[None, :]
            b_dk, b_dv = add_rows(
                p_rows, i_row, m_m, s_qn * ALIGN, s_gn * ALIGN, b_k, b_v, m_keep, b_dk, b_dv, scale, PRECISION, BLOCK_M
            )

    # the keys once more: + 0, but known only now, so that their addresses hold no registers during the loops
    _, u = keys_at(tl.program_id(0) + (head >> 31), j_base, every, BLOCK_N)
    o_d = tl.arange(0, BLOCK_D)[None, :]
    m_out = (u < kv_stop)[:, None] & (o_d < HEAD_DIM)
    o_first = (i_batch * s_db + i_kv * s_dh + i_key * s_dn) * ALIGN
    o_out = (u - u_first)[:, None] * (s_dn * ALIGN) + o_d
    add(dv + o_first + o_out, b_dv, m_out, ROUND > 0)
    add(dk + o_first + o_out, b_dk * (scale * LN_2), m_out, ROUND > 0)
