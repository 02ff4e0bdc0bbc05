"""Block-sparse attention, backward: dQ over the columns of a row, dK and dV over the rows of a column.

dQ takes the tiles of the forward kernel. dK and dV are owned by tiles of keys, in rounds, so that no two programs of a
launch add to the same numbers and the order of all sums is fixed. Round 0 takes keys as they come and adds what the
rule keeps near the diagonal, for all heads of a KV head. Every later round takes the columns of one stride, gathered
to full tiles, and the rows at the stride's distances: neighbours in a stride are read by the same rows.
"""

import triton
import triton.language as tl

from .forward import (
    BLOCK_BITS,
    BLOCK_D,
    LN_2,
    LOG2_E,
    columns_of,
    edge,
    load_keys,
    load_rows,
    locate,
    progression,
    request,
    runs,
    search,  # noqa: F401 (tables)
)

# --- constants: facts of the pattern, set by patterncc ---
BLOCK = tl.constexpr(64)
HEAD_DIM = tl.constexpr(64)
IS_CAUSAL = tl.constexpr(False)
# --- end constants ---

# --- index map: column and slot to row ---
# class 0: j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 0
# class 1: j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 1
# class 2: j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 2
# class 3: j<2 | 0<=i<2 | -1<=d<2 | random 3 seed 3
# and 8 classes more
CLASS_INTS = ((), (), (), (), (), (), (), (), (), (), (), ())
STRIDES = ()


@triton.jit
def row_map(pattern, rows, j_first, j_last, i_first, i_whole, i_full, i_stop):
    """The slots of the rows that keep column j_first: those below `far` keep it whole and are whole and past it."""
    pattern += j_first.to(tl.int64) * 3
    start, part, stop = tl.load(pattern), tl.load(pattern + 1), tl.load(pattern + 2)
    low = search(rows, start, part, i_whole, False)
    high = search(rows, low, part, tl.maximum(i_whole, i_full), True)
    places = (rows, low, high - low, start, low - start, high, stop)
    return (high - low).to(tl.int32), (stop - start).to(tl.int32), places, (part - start,)


@triton.jit
def row(slot, places, IS_FAR: tl.constexpr):
    """The row in a slot: first the far ones, then those before them, then those after them."""
    rows, low, far, start, before, high, stop = places
    at = low + slot
    if not IS_FAR:
        at = tl.where(slot < far, at, start + slot - far)
        at = tl.where(slot < far + before, at, high + slot - far - before)
    return tl.load(rows + at, mask=at < stop, other=0)


@triton.jit
def keeps_near(slot, i, j, t, u, rule):
    """Whether query token t, of the row i in this slot, keeps key token u, of column j: but for causality."""
    (whole,) = rule
    keep = slot < whole
    return keep


@triton.jit
def stride(pattern, ROUND: tl.constexpr):
    """A table has no strides."""
    return 0, 0, 1, 0, 0


# --- end index map ---


@triton.jit(do_not_specialize=["q_len", "s_ob", "s_oh", "s_on", "s_gb", "s_gh", "s_gn", "s_lb", "s_lh", "s_db", "s_dh"])
def attn_bwd_prepare_bigbird(
    out,  # [batch, heads, q_len, HEAD_DIM]
    dout,
    lse,  # [batch, heads, q_len]
    dlse,  # likewise, or None
    log_sum,  # written: LSE in powers of 2, +inf where nothing was kept, so that every weight is 0 there
    delta,  # written: what a row's softmax subtracts from the gradient of its weights
    q_len,
    s_ob,  # strides of out and dout, in units of ALIGN numbers
    s_oh,
    s_on,
    s_gb,
    s_gh,
    s_gn,
    s_lb,
    s_lh,
    s_db,
    s_dh,
    BLOCK_M: tl.constexpr,
    ALIGN: tl.constexpr,
):
    o_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    i_head = tl.program_id(1).to(tl.int64)
    i_batch = tl.program_id(2).to(tl.int64)
    m_m = o_m < q_len
    o_out = (i_batch * s_ob + i_head * s_oh + o_m.to(tl.int64) * s_on) * ALIGN
    o_dout = (i_batch * s_gb + i_head * s_gh + o_m.to(tl.int64) * s_gn) * ALIGN
    b_out = load_rows(out, o_out[:, None], m_m).to(tl.float32)
    b_dout = load_rows(dout, o_dout[:, None], m_m).to(tl.float32)
    b_delta = tl.sum(b_out * b_dout, 1)
    b_lse = tl.load(lse + i_batch * s_lb + i_head * s_lh + o_m, mask=m_m, other=float("-inf"))
    if dlse is not None:
        b_delta -= tl.load(dlse + i_batch * s_db + i_head * s_dh + o_m, mask=m_m, other=0.0)
    is_empty = b_lse == float("-inf")
    p_row = (i_batch * tl.num_programs(1) + i_head) * q_len + o_m
    tl.store(log_sum + p_row, tl.where(is_empty, float("inf"), b_lse * LOG2_E), mask=m_m)
    tl.store(delta + p_row, tl.where(is_empty, 0.0, b_delta), mask=m_m)


@triton.jit
def weights(b_q, b_k, b_v, b_dout, b_log_sum, b_delta, m_keep, scale, PRECISION: tl.constexpr):
    """The weights of a tile and the gradient of its scores, before the scale. Both [rows of b_q, rows of b_k]."""
    b_s = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION)
    b_p = tl.exp2(b_s * scale - b_log_sum)
    if m_keep is not None:
        b_p = tl.where(m_keep, b_p, 0.0)
    b_dp = tl.dot(b_dout, tl.trans(b_v), input_precision=PRECISION)
    return b_p, b_p * (b_dp - b_delta)


# fmt: off
DQ_INTS = [
    "q_len", "kv_len", "q_start", "kv_start", "s_qb", "s_qh", "s_qn", "s_kb", "s_kh", "s_kn", "s_vb", "s_vh", "s_vn",
    "s_gb", "s_gh", "s_gn", "s_ob", "s_oh", "s_on", "s_lb", "s_lh",
]
# fmt: on


@triton.jit(do_not_specialize=DQ_INTS)
def attn_bwd_dq_bigbird(
    q,  # [batch, heads, q_len, HEAD_DIM], or packed [total_q, heads, HEAD_DIM] when IS_PACKED
    k,  # [batch, kv_heads, kv_len, HEAD_DIM], or packed likewise
    v,
    dout,  # like q
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

    t_base = q_start & -BLOCK_Q
    i_tile = (q_stop - t_base + BLOCK_Q - 1) // BLOCK_Q - 1 - tl.program_id(0)
    if (i_tile < 0) | (q_len == 0):
        return
    t_base += i_tile * BLOCK_Q
    o_m = tl.arange(0, BLOCK_Q * BLOCK_H)
    o_t = t_base + o_m % BLOCK_Q  # [BLOCK_M]
    m_q = (o_t >= q_start) & (o_t < q_stop)
    p_group = groups + tl.program_id(1) * (2 + BLOCK_H)
    i_kv = tl.load(p_group).to(tl.int64)
    if BLOCK_H == 1:
        i_head = tl.load(p_group + 2).to(tl.int64)
    else:
        i_head = tl.load(p_group + 2 + o_m // BLOCK_Q).to(tl.int64)  # [BLOCK_M]
        m_q &= i_head >= 0

    t_first = tl.maximum(t_base, q_start)
    t_last = tl.minimum(t_base + BLOCK_Q, q_stop) - 1
    n_far, n_slots, places, rule = columns_of(
        pattern + tl.load(p_group + 1),
        columns,
        t_first,
        t_last,
        kv_start,
        kv_stop,
    )
    far_tiles = n_far * BLOCK // BLOCK_N
    all_tiles = (n_slots * BLOCK + BLOCK_N - 1) // BLOCK_N

    # addresses: 64 bits to the tile's first row, 32 from there
    i_row = q_first + (t_base - q_start).to(tl.int64)
    o_row = o_m % BLOCK_Q
    p_q = q + (i_batch * s_qb + i_head * s_qh + i_row * s_qn) * ALIGN + o_row * (s_qn * ALIGN)
    p_dout = dout + (i_batch * s_gb + i_head * s_gh + i_row * s_gn) * ALIGN + o_row * (s_gn * ALIGN)
    o_sum = i_batch * s_lb + i_head * s_lh + i_row + o_row
    b_q = load_rows(p_q[:, None], 0, m_q)  # [BLOCK_M, BLOCK_D]
    b_dout = load_rows(p_dout[:, None], 0, m_q)
    b_log_sum = tl.load(log_sum + o_sum, mask=m_q, other=float("inf"))[:, None]
    b_delta = tl.load(delta + o_sum, mask=m_q, other=0.0)[:, None]
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
        b_k = load_keys(k, row, 0, s_kn * ALIGN, None, 0, BLOCK, BLOCK_N)
        b_v = load_keys(v, row, 0, s_vn * ALIGN, None, 0, BLOCK, BLOCK_N)
        _, b_ds = weights(b_q, b_k, b_v, b_dout, b_log_sum, b_delta, None, scale, PRECISION)
        b_dq = tl.dot(b_ds.to(b_k.dtype), b_k, b_dq, input_precision=PRECISION)
    for tile in tl.range(far_tiles, all_tiles, num_stages=2):
        row, m_n, m_keep = edge(
            tile, n_slots, places, rule, o_t, t_first, t_last, kv_start, kv_stop, None, 0, BLOCK, BLOCK_Q, BLOCK_N
        )
        b_k = load_keys(k, row, 0, s_kn * ALIGN, m_n, 0, BLOCK, BLOCK_N)
        b_v = load_keys(v, row, 0, s_vn * ALIGN, m_n, 0, BLOCK, BLOCK_N)
        _, b_ds = weights(b_q, b_k, b_v, b_dout, b_log_sum, b_delta, m_keep, scale, PRECISION)
        b_dq = tl.dot(b_ds.to(b_k.dtype), b_k, b_dq, input_precision=PRECISION)

    o_d = tl.arange(0, BLOCK_D)[None, :]
    p_dq = dq + (i_batch * s_ob + i_head * s_oh + i_row * s_on) * ALIGN + o_row * (s_on * ALIGN)
    b_dq = (b_dq * (scale * LN_2)).to(dq.dtype.element_ty)
    tl.store(p_dq[:, None] + o_d, b_dq, mask=m_q[:, None] & (o_d < HEAD_DIM))


@triton.jit
def span(i_first, i_whole, i_full, i_stop, d_low, d_high):
    """As `row_map`, of rows that keep all columns of the tile, at distances d_low <= d < d_high from each."""
    stop_0 = tl.maximum(i_full - i_whole, 0)
    i_edge = tl.maximum(i_first, tl.minimum(i_whole, i_stop))
    stop_1 = stop_0 + i_edge - i_first
    i_last = tl.maximum(i_edge, i_full)
    stop_2 = stop_1 + tl.maximum(i_stop - i_last, 0)
    return stop_0, stop_2, (i_whole, stop_0, i_first - stop_0, stop_1, i_last - stop_1), (d_low, d_high)


@triton.jit
def locate_rows(tile, places, q_start, ROUND: tl.constexpr, BLOCK_M: tl.constexpr):
    """The rows of q at which the runs of a far tile begin. [BLOCK_M], or one for all."""
    slot, o_run = runs(tile, BLOCK, BLOCK_M)
    return (row_in(slot, places, ROUND > 0, True) * BLOCK + o_run - q_start).to(tl.uint32)


@triton.jit
def row_in(slot, places, IS_STRIDE: tl.constexpr, IS_FAR: tl.constexpr):
    """The row in a slot of this round."""
    if IS_STRIDE:
        first_0, stop_0, first_1, stop_1, first_2 = places
        i = first_0 + slot
        if not IS_FAR:
            i = tl.where(slot < stop_0, i, first_1 + slot)
            i = tl.where(slot < stop_1, i, first_2 + slot)
        return i
    else:
        return row(slot, places, IS_FAR)


@triton.jit
def keeps_in(slot, i, j, t, u, rule, IS_STRIDE: tl.constexpr):
    """Whether this round is the one that adds query token t, of row i, to key token u, of column j."""
    if IS_STRIDE:
        d_low, d_high = rule
        return (i - j >= d_low) & (i - j < d_high)
    else:
        return keeps_near(slot, i, j, t, u, rule)


@triton.jit
def slots_of(
    p_member, pattern, rows, j_first, j_last, i_first, i_whole, i_full, i_stop, d_low, d_high, ROUND: tl.constexpr
):
    """A head of the program, and the slots of its rows that keep columns j_first..j_last, as `row_map` says them."""
    head = tl.load(p_member)
    if ROUND:
        # + 0, but known only now: addresses and masks that no head changes would hold registers from the start
        late = head >> 31
        whole, full = i_whole + late, i_full + late
        n_far, n_slots, places, rule = span(i_first + late, whole, full, i_stop + late, d_low, d_high)
    else:
        p_class = pattern + tl.load(p_member + 1)
        n_far, n_slots, places, rule = row_map(p_class, rows, j_first, j_last, i_first, i_whole, i_full, i_stop)
    return head, n_far, n_slots, places, rule


@triton.jit
def keys_at(first, j_base, every, BLOCK_N: tl.constexpr):
    """Columns and positions of the BLOCK_N keys from tile `first` on, of columns j_base, j_base + every, ..."""
    slot, o_run = runs(first, BLOCK, BLOCK_N)
    j = j_base + slot * every + tl.zeros([BLOCK_N], tl.int32)
    return j, j * BLOCK + o_run + (tl.arange(0, BLOCK_N) & (BLOCK - 1))


@triton.jit
def add(p, b, m, IS_MORE: tl.constexpr):
    """Store b where m is true: added to what is there when it is more of the same."""
    if IS_MORE:
        b += tl.load(p, mask=m, other=0.0)
    tl.store(p, b.to(p.dtype.element_ty), mask=m)


# fmt: off
DKDV_INTS = [
    "q_len", "kv_len", "q_start", "kv_start", "s_qb", "s_qh", "s_qn", "s_kb", "s_kh", "s_kn", "s_vb", "s_vh", "s_vn",
    "s_gb", "s_gh", "s_gn", "s_db", "s_dh", "s_dn", "s_lb", "s_lh", "s_members",
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
    head = 0
    n_members = tl.load(p_members + 1)

    # far tiles of all heads, then edge tiles: what either needs holds no registers during the other. What no head
    # changes holds none either, but is worked out for each: beside two accumulators there is no room
    for member in tl.range(0, n_members, disable_licm=True):
        head, n_far, n_slots, places, rule = slots_of(
            p_members + 2 + 2 * member,
            pattern,
            rows,
            j_first,
            j_last,
            i_first,
            i_whole,
            i_full,
            i_stop,
            d_low,
            d_high,
            ROUND,
        )
        i_head = head.to(tl.int64)
        p_q = q + i_head * s_qh * ALIGN
        p_dout = dout + i_head * s_gh * ALIGN
        o_head = i_head * s_lh + o_m
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
            b_q = load_keys(p_q, i_row, 0, s_qn * ALIGN, None, 0, BLOCK, BLOCK_M)
            b_dout = load_keys(p_dout, i_row, 0, s_gn * ALIGN, None, 0, BLOCK, BLOCK_M)
            b_log_sum = tl.load(log_sum + o_head + i_row)[None, :]
            b_delta = tl.load(delta + o_head + i_row)[None, :]
            b_p, b_ds = weights(b_k, b_q, b_dout, b_v, b_log_sum, b_delta, None, scale, PRECISION)
            b_dv = tl.dot(b_p.to(b_dout.dtype), b_dout, b_dv, input_precision=PRECISION)
            b_dk = tl.dot(b_ds.to(b_q.dtype), b_q, b_dk, input_precision=PRECISION)

    j, u = keys_at(tl.program_id(0) + (head >> 31), j_base, every, BLOCK_N)
    for member in tl.range(0, n_members, disable_licm=True):
        head, n_far, n_slots, places, rule = slots_of(
            p_members + 2 + 2 * member,
            pattern,
            rows,
            j_first,
            j_last,
            i_first,
            i_whole,
            i_full,
            i_stop,
            d_low,
            d_high,
            ROUND,
        )
        i_head = head.to(tl.int64)
        p_q = q + i_head * s_qh * ALIGN
        p_dout = dout + i_head * s_gh * ALIGN
        o_head = i_head * s_lh + o_m
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
            b_q = load_keys(p_q, i_row, 0, s_qn * ALIGN, m_m, 0, BLOCK, BLOCK_M)
            b_dout = load_keys(p_dout, i_row, 0, s_gn * ALIGN, m_m, 0, BLOCK, BLOCK_M)
            b_log_sum = tl.load(log_sum + o_head + i_row, mask=m_m, other=0.0)[None, :]
            b_delta = tl.load(delta + o_head + i_row, mask=m_m, other=0.0)[None, :]
            b_p, b_ds = weights(b_k, b_q, b_dout, b_v, b_log_sum, b_delta, m_keep, scale, PRECISION)
            b_dv = tl.dot(b_p.to(b_dout.dtype), b_dout, b_dv, input_precision=PRECISION)
            b_dk = tl.dot(b_ds.to(b_q.dtype), b_q, b_dk, input_precision=PRECISION)

    # the keys once more: + 0, but known only now, so that their addresses hold no registers during the loops
    _, u = keys_at(tl.program_id(0) + (head >> 31), j_base, every, BLOCK_N)
    o_d = tl.arange(0, BLOCK_D)[None, :]
    m_out = (u < kv_stop)[:, None] & (o_d < HEAD_DIM)
    o_first = (i_batch * s_db + i_kv * s_dh + i_key * s_dn) * ALIGN
    o_out = (u - u_first)[:, None] * (s_dn * ALIGN) + o_d
    add(dv + o_first + o_out, b_dv, m_out, ROUND > 0)
    add(dk + o_first + o_out, b_dk * (scale * LN_2), m_out, ROUND > 0)
