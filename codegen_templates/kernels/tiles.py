"""Tiles of rows and of keys, for all kernels: which they are, where they lie in memory, and what is masked."""

import triton
import triton.language as tl

from .index_map import column, index_map, keeps

# --- constants: facts of the pattern, set by patterncc ---
BLOCK = tl.constexpr(16)
HEAD_DIM = tl.constexpr(32)
V_HEAD_DIM = tl.constexpr(32)
IS_CAUSAL = tl.constexpr(True)
IS_TABLE = tl.constexpr(False)  # the form of the index map
SOFTCAP = tl.constexpr(0.0)
HAS_SOFTCAP = tl.constexpr(False)
# --- end constants ---

BLOCK_D = tl.constexpr(max(16, triton.next_power_of_2(HEAD_DIM.value)))  # of queries and keys
BLOCK_V = tl.constexpr(max(16, triton.next_power_of_2(V_HEAD_DIM.value)))  # of values and outputs
SAME_DIMS = tl.constexpr(HEAD_DIM.value == V_HEAD_DIM.value)
BLOCK_BITS = tl.constexpr(BLOCK.value.bit_length() - 1)  # x >> BLOCK_BITS rounds down, also below 0
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def late_zero(x):
    """0, of an int32 x >= 0 that is known late: in a loop, or after a load.

    Adding it to an address keeps the compiler from computing the address before x is known, so that the address holds
    no registers during the loops in between.
    """
    return x >> 31


@triton.jit
def capped(b_s, scale):
    """(scores, factor): the scores to be multiplied by factor; tanh has been taken where the pattern caps them."""
    if HAS_SOFTCAP:
        return tanh(b_s * (scale / (SOFTCAP * LOG2_E))), SOFTCAP * LOG2_E
    else:
        return b_s, scale


@triton.jit
def tanh(x):
    """tanh of x to 1e-7: by its series below 1/4, where the quotient of exponentials would lose digits."""
    a = tl.abs(x)
    e = tl.exp2(a * (-2 * LOG2_E))
    y = x * x
    series = a * (1 + y * (-0.33333333 + y * (0.13333333 + y * (-0.053968254 + y * 0.021869488))))
    b = tl.where(a < 0.25, series, (1 - e) / (1 + e))
    return tl.where(x < 0, -b, b)


@triton.jit
def request(i_batch, q_starts, kv_starts, PAGE: tl.constexpr):
    """(first row, number) of the queries of a packed request, then of its keys; in pages its keys have no first row.
    First rows are int64 and numbers int32, whatever the lists are."""
    q_first = tl.load(q_starts + i_batch)
    q_len = tl.load(q_starts + i_batch + 1) - q_first
    kv_first = tl.load(kv_starts + i_batch)
    if PAGE:
        kv_len = kv_first
    else:
        kv_len = tl.load(kv_starts + i_batch + 1) - kv_first
    return q_first.to(tl.int64), q_len.to(tl.int32), kv_first.to(tl.int64), kv_len.to(tl.int32)


@triton.jit
def clear(
    p, p_sums, s_row, starts, total, i_program, programs, o_row, m_row,
    ROWS: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """Write 0 to the packed rows of no sequence, those before the first one and behind the last, and -inf to their
    sums, if there are any: the programs of the last sequence do that. p and p_sums are where row 0, of DIM numbers,
    lies, o_row how far each row of a tile is behind its first. `total` is the number of all rows, or 0 where none can
    be left over."""
    if tl.program_id(2) == tl.num_programs(2) - 1:
        before, behind = tl.load(starts), tl.load(starts + tl.num_programs(2))
        clear_outside(p, p_sums, s_row, before, behind, total, i_program, programs, o_row, m_row, ROWS, DIM, BLOCK_DIM)


@triton.jit
def clear_outside(
    p, p_sums, s_row, before, behind, total, i_program, programs, o_row, m_row,
    ROWS: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """`clear` of the rows below `before` and of those from `behind` on."""
    count = (before + total - behind).to(tl.int32)
    o_d = tl.arange(0, BLOCK_DIM)[None, :]
    for x in range(i_program * ROWS, count, programs * ROWS):
        row = x + o_row  # [ROWS]
        m = m_row & (row < count)
        row = tl.where(row < before, row, row - before + behind).to(tl.int64)
        b_none = tl.zeros([row.shape[0], BLOCK_DIM], tl.float32).to(p.dtype.element_ty)
        tl.store((p + row * s_row)[:, None] + o_d, b_none, mask=m[:, None] & (o_d < DIM))
        if p_sums is not None:
            tl.store(p_sums + row, tl.full([row.shape[0]], float("-inf"), tl.float32), mask=m)


@triton.jit
def clear_queries(
    p, s_head, s_row, p_sums, s_sums, groups, starts, total, i_tile, tiles,
    BLOCK_Q: tl.constexpr, BLOCK_H: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """`clear` of this program's heads, in out and LSE, or in dq without any sums."""
    if tl.program_id(2) == tl.num_programs(2) - 1:
        o_m = tl.arange(0, BLOCK_Q * BLOCK_H)
        i_head = tl.load(groups + tl.program_id(1) * (2 + BLOCK_H) + 2 + o_m // BLOCK_Q).to(tl.int64)  # [BLOCK_M]
        p_of_heads = None if p_sums is None else p_sums + i_head * s_sums
        clear(
            p + i_head * s_head, p_of_heads, s_row, starts, total, i_tile, tiles, o_m % BLOCK_Q, i_head >= 0,
            BLOCK_Q, DIM, BLOCK_DIM,
        )  # fmt: skip


@triton.jit
def tile_of(i_tile, groups, q_start, q_stop, BLOCK_Q: tl.constexpr, BLOCK_H: tl.constexpr):
    """(t_base, o_m, o_t, i_head, m_q, i_kv, p_group): a tile's first position; its rows' numbers, positions and heads;
    which of the rows exist; the KV head; and a pointer to its group."""
    t_base = (q_start & -BLOCK_Q) + i_tile * BLOCK_Q
    o_m = tl.arange(0, BLOCK_Q * BLOCK_H)
    o_t = t_base + o_m % BLOCK_Q  # [BLOCK_M]
    m_q = (o_t >= q_start) & (o_t < q_stop)  # [BLOCK_M]
    p_group = groups + tl.program_id(1) * (2 + BLOCK_H)
    i_kv = tl.load(p_group).to(tl.int64)
    if BLOCK_H == 1:
        i_head = tl.load(p_group + 2).to(tl.int64)
    else:
        i_head = tl.load(p_group + 2 + o_m // BLOCK_Q).to(tl.int64)  # [BLOCK_M]
        m_q &= i_head >= 0
    return t_base, o_m, o_t, i_head, m_q, i_kv, p_group


@triton.jit
def columns_of(pattern, columns, t_first, t_last, kv_start, kv_stop):
    """The slots of the columns that tokens t_first..t_last keep, of the keys that are present."""
    i_first, i_last = t_first >> BLOCK_BITS, t_last >> BLOCK_BITS
    j_whole = kv_stop >> BLOCK_BITS
    j_stop = (kv_stop + BLOCK - 1) >> BLOCK_BITS
    if IS_CAUSAL:
        j_whole = tl.minimum(j_whole, i_first)
        j_stop = tl.minimum(j_stop, i_last + 1)
    return index_map(pattern, columns, i_first, i_last, kv_start >> BLOCK_BITS, j_whole, j_stop)


@triton.jit
def runs(tile, RUN: tl.constexpr, WIDTH: tl.constexpr):
    """(slot, o_run) of every token of a tile of WIDTH tokens: its slot, and where in the block its run begins. A run is
    RUN tokens that are neighbours in memory. [WIDTH], or one number where it is the same for all tokens.

    The slots within a tile are constants apart, so numbers that follow from a slot are computed once a block, not once
    a row.
    """
    tile = tl.cast(tile, tl.int32)  # from an int of Python, when interpreted
    if WIDTH > BLOCK:
        o = tl.arange(0, WIDTH)
        return tile * (WIDTH // BLOCK) + (o >> BLOCK_BITS), o & (BLOCK - RUN)
    else:
        x = tile * WIDTH
        if WIDTH > RUN:
            return x >> BLOCK_BITS, (x & (BLOCK - 1)) + (tl.arange(0, WIDTH) & -RUN)
        else:
            return x >> BLOCK_BITS, x & (BLOCK - 1)


@triton.jit
def rows(u, kv_start, pages, PAGE: tl.constexpr):
    """The rows of k and v that hold the keys at positions u."""
    if PAGE:
        return tl.load(pages + u // PAGE).to(tl.int32) * PAGE + u % PAGE
    else:
        return (u - kv_start).to(tl.uint32)  # multiplied by a stride with half the instructions


@triton.jit
def locate(tile, places, kv_start, pages, PAGE: tl.constexpr, RUN: tl.constexpr, BLOCK_N: tl.constexpr):
    """The rows at which the runs of a far tile begin. [BLOCK_N], or one for all."""
    slot, o_run = runs(tile, RUN, BLOCK_N)
    return rows(column(slot, places, True) * BLOCK + o_run, kv_start, pages, PAGE)


@triton.jit
def edge(
    tile,
    n_slots,
    places,
    rule,
    o_t,
    t_first,
    t_last,
    kv_start,
    kv_stop,
    pages,
    PAGE: tl.constexpr,
    RUN: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """(row, m_n, m_keep) of an edge tile: the rows of k and v at which its runs begin; which keys any row of the tile
    keeps [BLOCK_N]; and which row keeps which key [BLOCK_M, BLOCK_N]."""
    slot, o_run = runs(tile, RUN, BLOCK_N)
    j = column(slot, places, False)
    u_run = j * BLOCK + o_run
    if PAGE:  # what the table says behind the last key is no page
        row = rows(tl.where((slot < n_slots) & (u_run < kv_stop), u_run, kv_start), kv_start, pages, PAGE)
    else:
        row = rows(u_run, kv_start, pages, PAGE)
    slot += tl.zeros([BLOCK_N], tl.int32)  # [BLOCK_N]
    j += tl.zeros([BLOCK_N], tl.int32)  # [BLOCK_N]
    u = u_run + (tl.arange(0, BLOCK_N) & (RUN - 1))  # [BLOCK_N]
    i_first, i_last = t_first >> BLOCK_BITS, t_last >> BLOCK_BITS
    m_n = keeps(slot, i_first, i_last, j, t_first, t_last, u, rule)  # [BLOCK_N]
    m_n &= (slot < n_slots) & (u >= kv_start) & (u < kv_stop)
    t = o_t[:, None]  # [BLOCK_M, 1]
    i = i_first if BLOCK_Q <= BLOCK else t >> BLOCK_BITS
    m_keep = keeps(slot[None, :], i, i, j[None, :], t, t, u[None, :], rule) & m_n[None, :]  # [BLOCK_M, BLOCK_N]
    if IS_CAUSAL:
        m_n &= u <= t_last
        m_keep &= u[None, :] <= t
    return row, m_n, m_keep


@triton.jit
def load_keys(
    p, row, s_page, s_row, m_row,
    PAGE: tl.constexpr, RUN: tl.constexpr, BLOCK_N: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """The tile of k or v, of DIM numbers a row, whose runs begin at these rows. [BLOCK_N, BLOCK_DIM]"""
    o_n = (tl.arange(0, BLOCK_N) & (RUN - 1)) * s_row
    if PAGE:
        o_run = (row // PAGE).to(tl.int64) * s_page + (row % PAGE) * s_row
    else:
        o_run = row.to(tl.int64) * s_row
    if BLOCK_N > RUN:
        return load_rows(p + o_n[:, None], o_run[:, None], m_row, DIM, BLOCK_DIM)
    else:
        return load_rows(p + o_run, o_n[:, None], m_row, DIM, BLOCK_DIM)


@triton.jit
def load_rows(p, o_row, m_row, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    """The rows at p + o_row [rows, 1], zero where m_row is false and past DIM. [rows, BLOCK_DIM]"""
    o_d = tl.arange(0, BLOCK_DIM)[None, :]
    p += o_d
    p += o_row
    if m_row is not None:
        return tl.load(p, mask=m_row[:, None] & (o_d < DIM), other=0.0)
    elif BLOCK_DIM > DIM:
        return tl.load(p, mask=o_d < DIM, other=0.0)
    else:
        return tl.load(p)
