"""Block-sparse attention, forward: dense attention over a virtual sequence of the blocks that a row keeps.

A program takes BLOCK_H query heads of one KV head and one class, at BLOCK_Q positions: a tile of BLOCK_M rows.
Positions are absolute, so a tile lies in the pattern where its tokens lie in the sequence. The columns that the tile
needs are numbered by slots: first the far ones, which every row keeps whole, then the edge. The index map says which
column a slot holds. Tiles of BLOCK_N keys run through the slots: without any mask while they are far, then with the
exact rule.
"""

import triton
import triton.language as tl

# --- constants: facts of the pattern, set by patterncc ---
BLOCK = tl.constexpr(16)
HEAD_DIM = tl.constexpr(64)
IS_CAUSAL = tl.constexpr(True)
# --- end constants ---

BLOCK_D = tl.constexpr(max(16, triton.next_power_of_2(HEAD_DIM.value)))
BLOCK_BITS = tl.constexpr(BLOCK.value.bit_length() - 1)  # x >> BLOCK_BITS rounds down, also below 0
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def progression(low, high, every, residue):
    """The least column >= low that is residue modulo every, and how many such columns lie below high."""
    first = low + ((residue - low) % every + every) % every
    return first, tl.maximum(high - first + every - 1, 0) // every


@triton.jit
def search(p_sorted, low, high, bound, FROM_END: tl.constexpr):
    """The first place in low..high whose number is not below bound: soon, when that is near one end."""
    step = 1
    while low < high:
        middle = (low + high) // 2
        if FROM_END:
            middle = tl.maximum(middle, high - step)
        else:
            middle = tl.minimum(middle, low + step - 1)
        is_below = tl.load(p_sorted + middle) < bound
        low = tl.where(is_below, middle + 1, low)
        high = tl.where(is_below, high, middle)
        step *= 2
    return low


# --- index map: row and slot to column ---
# class 0: 0<=d<2 | 2<=d & j%4==0
# class 1: 0<=d<2 | 2<=d & j%4==1
# class 2: 0<=d<2 | 2<=d & j%4==2
# class 3: 0<=d<2 | 2<=d & j%4==3
CLASS_INTS = ((0,), (1,), (2,), (3,))


@triton.jit
def index_map(pattern, columns, i_first, i_last, j_first, j_whole, j_stop):
    """The slots of rows i_first..i_last: how many are far, how many there are, their zones, and what the rule needs."""
    residue = tl.load(pattern)
    # far: columns below j_whole that every row keeps
    low, count = progression(j_first, tl.minimum(j_whole, i_first - 1), 4, residue)
    first_0 = low
    stop_0 = count
    low = tl.maximum(j_first, i_last - 1)
    first_1 = low - stop_0
    stop_1 = stop_0 + tl.maximum(j_whole - low, 0)
    # edge: around the distances at which the rule changes, then whatever is not below j_whole
    low = tl.maximum(j_first, tl.minimum(j_whole, i_first - 1))
    high = tl.maximum(low, tl.minimum(j_whole, i_last - 1))
    first_2 = low - stop_1
    stop_2 = stop_1 + high - low
    low = tl.maximum(high, j_whole)
    high = tl.maximum(low, j_stop)
    first_3 = low - stop_2
    stop_3 = stop_2 + high - low
    places = (first_0, stop_0, first_1, stop_1, first_2, stop_2, first_3)
    rule = (residue,)
    return stop_1, stop_3, places, rule


@triton.jit
def column(slot, places, IS_FAR: tl.constexpr):
    """The column in a slot."""
    first_0, stop_0, first_1, stop_1, first_2, stop_2, first_3 = places
    j = first_0 + slot * 4
    j = tl.where(slot < stop_0, j, first_1 + slot)
    if not IS_FAR:
        j = tl.where(slot < stop_1, j, first_2 + slot)
        j = tl.where(slot < stop_2, j, first_3 + slot)
    return j


@triton.jit
def keeps(slot, i_first, i_last, j, t_first, t_last, u, rule):
    """Whether one of the query tokens t_first..t_last, of rows i_first..i_last, keeps key token u, of the column j in
    this slot: but for causality."""
    (residue,) = rule
    keep = (j <= i_last - 2) & ((j - residue) % 4 == 0)
    keep |= j > i_first - 2
    return keep


# --- end index map ---


@triton.jit
def rows(u, kv_start, pages, PAGE: tl.constexpr):
    """Where in memory the keys at these positions lie, in rows of k and v."""
    if PAGE:
        return tl.load(pages + u // PAGE) * PAGE + u % PAGE
    else:
        return (u - kv_start).to(tl.uint32)  # multiplied by a stride with half the instructions


@triton.jit
def columns_of(pattern, columns, t_first, t_last, kv_start, kv_stop):
    """The slots of the columns that tokens t_first..t_last keep, of the keys that are present."""
    i_first, i_last = t_first >> BLOCK_BITS, t_last >> BLOCK_BITS
    j_whole = kv_stop >> BLOCK_BITS
    j_stop = (kv_stop + BLOCK - 1) >> BLOCK_BITS
    j_whole = tl.minimum(j_whole, i_first)
    j_stop = tl.minimum(j_stop, i_last + 1)
    return index_map(pattern, columns, i_first, i_last, kv_start >> BLOCK_BITS, j_whole, j_stop)


@triton.jit
def runs(tile, RUN: tl.constexpr, WIDTH: tl.constexpr):
    """Of a tile of WIDTH tokens, RUN after RUN of which are neighbours in memory: each one's slot, and where in its
    block its run begins. [WIDTH], or one number for all when it is the same.

    The slots within a tile are constants apart, so what follows from a slot is worked out once a block, not once a row.
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
    """The rows at which the runs of an edge tile begin, which keys a row of the tile keeps at all, and which row keeps
    which."""
    slot, o_run = runs(tile, RUN, BLOCK_N)
    j = column(slot, places, False)
    u_run = j * BLOCK + o_run
    if PAGE:  # what the table says behind the last key is no page
        row = rows(tl.where((slot < n_slots) & (u_run < kv_stop), u_run, kv_start), kv_start, pages, PAGE)
    else:
        row = rows(u_run, kv_start, pages, PAGE)
    slot += tl.zeros([BLOCK_N], tl.int32)
    j += tl.zeros([BLOCK_N], tl.int32)
    u = u_run + (tl.arange(0, BLOCK_N) & (RUN - 1))  # [BLOCK_N]
    i_first, i_last = t_first >> BLOCK_BITS, t_last >> BLOCK_BITS
    m_n = keeps(slot, i_first, i_last, j, t_first, t_last, u, rule)
    m_n &= (slot < n_slots) & (u >= kv_start) & (u < kv_stop)
    t = o_t[:, None]
    i = i_first if BLOCK_Q <= BLOCK else t >> BLOCK_BITS
    m_keep = keeps(slot[None, :], i, i, j[None, :], t, t, u[None, :], rule) & m_n[None, :]
    m_n &= u <= t_last
    m_keep &= u[None, :] <= t
    return row, m_n, m_keep


@triton.jit
def load_keys(p, row, s_page, s_row, m_row, PAGE: tl.constexpr, RUN: tl.constexpr, BLOCK_N: tl.constexpr):
    """The tile of k or v whose runs begin at these rows. [BLOCK_N, BLOCK_D]"""
    o_n = (tl.arange(0, BLOCK_N) & (RUN - 1)) * s_row
    if PAGE:
        o_run = (row // PAGE).to(tl.int64) * s_page + (row % PAGE) * s_row
    else:
        o_run = row.to(tl.int64) * s_row
    if BLOCK_N > RUN:
        return load_rows(p + o_n[:, None], o_run[:, None], m_row)
    else:
        return load_rows(p + o_run, o_n[:, None], m_row)


@triton.jit
def load_rows(p, o_row, m_row):
    """The rows at p + o_row [rows, 1], zero where m_row is false and past HEAD_DIM. [rows, BLOCK_D]"""
    o_d = tl.arange(0, BLOCK_D)[None, :]
    p += o_d
    p += o_row
    if m_row is not None:
        return tl.load(p, mask=m_row[:, None] & (o_d < HEAD_DIM), other=0.0)
    elif BLOCK_D > HEAD_DIM:
        return tl.load(p, mask=o_d < HEAD_DIM, other=0.0)
    else:
        return tl.load(p)


@triton.jit
def attend(b_q, b_k, b_v, m_keep, b_out, b_max, b_sum, scale, PRECISION: tl.constexpr):
    """Add a tile of keys to the running output, maximum (in powers of 2) and sum: one step of online softmax."""
    b_s = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION)  # [BLOCK_M, BLOCK_N]
    if m_keep is None:
        b_new = tl.maximum(b_max, tl.max(b_s, 1) * scale)
        b_p = tl.exp2(b_s * scale - b_new[:, None])
        b_old = tl.exp2(b_max - b_new)
    else:
        b_s = tl.where(m_keep, b_s * scale, float("-inf"))
        b_new = tl.maximum(b_max, tl.max(b_s, 1))
        b_base = tl.where(b_new == float("-inf"), 0.0, b_new)  # rows that have kept nothing so far
        b_p = tl.exp2(b_s - b_base[:, None])
        b_old = tl.exp2(b_max - b_base)
    b_out = tl.dot(b_p.to(b_v.dtype), b_v, b_out * b_old[:, None], input_precision=PRECISION)
    return b_out, b_new, b_sum * b_old + tl.sum(b_p, 1)


@triton.jit
def request(i_batch, q_starts, kv_starts, PAGE: tl.constexpr):
    """Where the queries of a packed request begin in memory and how many there are, then the same of its keys."""
    q_first = tl.load(q_starts + i_batch)
    q_len = tl.load(q_starts + i_batch + 1) - q_first
    kv_first = tl.load(kv_starts + i_batch)
    if PAGE:
        kv_len = kv_first
    else:
        kv_len = tl.load(kv_starts + i_batch + 1) - kv_first
    return q_first.to(tl.int64), q_len, kv_first.to(tl.int64), kv_len


# fmt: off
RUNTIME_INTS = [
    "q_len", "kv_len", "q_start", "kv_start", "splits", "s_pages", "s_qb", "s_qh", "s_qn", "s_kb", "s_kh", "s_kn",
    "s_vb", "s_vh", "s_vn", "s_ob", "s_oh", "s_on", "s_os", "s_lb", "s_lh", "s_ls",
]
# fmt: on


@triton.jit(do_not_specialize=RUNTIME_INTS)  # one binary serves every length
def attn_fwd_demo(
    q,  # [batch, heads, q_len, HEAD_DIM], or packed [total_q, heads, HEAD_DIM] when IS_PACKED
    k,  # [batch, kv_heads, kv_len, HEAD_DIM], or packed likewise, or pages [pages, PAGE, kv_heads, HEAD_DIM]
    v,
    out,
    lse,  # [batch, heads, q_len], or [heads, total_q]
    groups,  # [groups, 2 + BLOCK_H]: KV head, the class's place in `pattern`, its query heads (-1: none)
    pattern,  # what index_map reads
    columns,
    q_starts,  # [batch + 1] where a packed request's queries begin
    kv_starts,  # [batch + 1] where its keys begin; when paged, [batch] how many there are
    pages,  # [batch, s_pages] where its pages are
    scale,  # times log2(e)
    q_len,
    kv_len,
    q_start,  # the position of the first query
    kv_start,  # the position of the first key, a multiple of BLOCK
    s_qb,  # strides, in units of ALIGN numbers
    s_qh,
    s_qn,
    s_kb,
    s_kh,
    s_kn,
    s_vb,
    s_vh,
    s_vn,
    s_ob,
    s_oh,
    s_on,
    s_os,
    s_lb,
    s_lh,
    s_ls,
    s_pages,
    splits,  # programs that share the keys of a tile; part n of `out` and `lse` lies n * s_os, n * s_ls further
    BLOCK_Q: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PAGE: tl.constexpr,  # keys in a page; 0 when k and v are not paged
    ALIGN: tl.constexpr,
    IS_PACKED: tl.constexpr,
    IS_LOOKED_UP: tl.constexpr,  # whether finding a key reads memory: a table, or pages
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    i_batch = tl.program_id(2).to(tl.int64)
    q_first, kv_first = 0, 0
    if IS_PACKED:
        q_first, q_len, kv_first, kv_len = request(i_batch, q_starts, kv_starts, PAGE)
        q_start = kv_len - q_len
    q_stop = q_start + q_len
    kv_stop = kv_start + kv_len

    # this tile's rows: the last positions keep most keys, so they go first
    i_split = tl.program_id(0) % splits
    t_base = q_start & -BLOCK_Q
    i_tile = (q_stop - t_base + BLOCK_Q - 1) // BLOCK_Q - 1 - tl.program_id(0) // splits
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

    # the columns that they keep
    t_first = tl.maximum(t_base, q_start)
    t_last = tl.minimum(t_base + BLOCK_Q, q_stop) - 1
    pattern += tl.load(p_group + 1)
    n_far, n_slots, places, rule = columns_of(pattern, columns, t_first, t_last, kv_start, kv_stop)
    far_tiles = n_far * BLOCK // BLOCK_N
    all_tiles = (n_slots * BLOCK + BLOCK_N - 1) // BLOCK_N
    tile_from = all_tiles * i_split // splits
    tile_to = all_tiles * (i_split + 1) // splits

    # addresses: 64 bits to the tile's first row, 32 from there
    i_row = q_first + (t_base - q_start).to(tl.int64)
    o_row = o_m % BLOCK_Q
    p_q = q + (i_batch * s_qb + i_head * s_qh + i_row * s_qn) * ALIGN + o_row * (s_qn * ALIGN)
    b_q = load_rows(p_q[:, None], 0, m_q)  # [BLOCK_M, BLOCK_D]
    if PAGE:
        pages += i_batch * s_pages
        k += i_kv * s_kh * ALIGN
        v += i_kv * s_vh * ALIGN
    else:
        k += (i_batch * s_kb + i_kv * s_kh + kv_first * s_kn) * ALIGN
        v += (i_batch * s_vb + i_kv * s_vh + kv_first * s_vn) * ALIGN

    b_out = tl.zeros([BLOCK_Q * BLOCK_H, BLOCK_D], tl.float32)
    b_max = tl.full([BLOCK_Q * BLOCK_H], float("-inf"), tl.float32)
    b_sum = tl.zeros([BLOCK_Q * BLOCK_H], tl.float32)

    # far tiles: every row keeps every key
    RUN: tl.constexpr = BLOCK if (BLOCK - 1) & PAGE == 0 else PAGE & -PAGE  # keys of a block that lie in one page
    last = tl.maximum(far_tiles - 1, 0)
    if IS_LOOKED_UP:  # one tile ahead: else the loads of k and v would wait for the address
        ahead = locate(tl.minimum(tile_from, last), places, kv_start, pages, PAGE, RUN, BLOCK_N)
    for tile in tl.range(tile_from, tl.minimum(tile_to, far_tiles), num_stages=STAGES):
        if IS_LOOKED_UP:
            row = ahead
            ahead = locate(tl.minimum(tile + 1, last), places, kv_start, pages, PAGE, RUN, BLOCK_N)
        else:
            row = locate(tile, places, kv_start, pages, PAGE, RUN, BLOCK_N)
        b_k = load_keys(k, row, s_kb * ALIGN, s_kn * ALIGN, None, PAGE, RUN, BLOCK_N)
        b_v = load_keys(v, row, s_vb * ALIGN, s_vn * ALIGN, None, PAGE, RUN, BLOCK_N)
        b_out, b_max, b_sum = attend(b_q, b_k, b_v, None, b_out, b_max, b_sum, scale, PRECISION)

    # edge tiles: the exact rule
    late = 0
    for tile in tl.range(tl.maximum(tile_from, far_tiles), tile_to, num_stages=2):
        late = tile >> 31
        row, m_n, m_keep = edge(
            tile, n_slots, places, rule, o_t, t_first, t_last, kv_start, kv_stop, pages, PAGE, RUN, BLOCK_Q, BLOCK_N
        )
        m_keep &= m_q[:, None]
        b_k = load_keys(k, row, s_kb * ALIGN, s_kn * ALIGN, m_n, PAGE, RUN, BLOCK_N)
        b_v = load_keys(v, row, s_vb * ALIGN, s_vn * ALIGN, m_n, PAGE, RUN, BLOCK_N)
        b_out, b_max, b_sum = attend(b_q, b_k, b_v, m_keep, b_out, b_max, b_sum, scale, PRECISION)

    b_lse = (b_max + tl.log2(b_sum)) * LN_2  # -inf where nothing was kept
    b_out = b_out / tl.where(b_sum == 0.0, 1.0, b_sum)[:, None]
    o_d = tl.arange(0, BLOCK_D)[None, :]
    # the rows once more: + 0, but known only now, so that their addresses hold no registers during the loops
    o_row = o_m % BLOCK_Q + late
    o_t = t_base + o_row
    m_q = (o_t >= q_start) & (o_t < q_stop)
    if BLOCK_H > 1:
        m_q &= i_head >= 0
    i_split = i_split.to(tl.int64)
    # a part is a number of whole rows: what is true of s_on is true of s_os, and stores of 16 bytes need to know
    o_out = i_split * (s_os // ALIGN) + i_batch * s_ob + i_head * s_oh + i_row * s_on
    p_out = out + o_out * ALIGN + o_row * (s_on * ALIGN)
    tl.store(p_out[:, None] + o_d, b_out.to(out.dtype.element_ty), mask=m_q[:, None] & (o_d < HEAD_DIM))
    tl.store(lse + i_split * s_ls + i_batch * s_lb + i_head * s_lh + i_row + o_row, b_lse, mask=m_q)
