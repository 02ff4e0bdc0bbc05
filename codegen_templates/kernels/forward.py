"""Block-sparse attention, forward: dense attention over a virtual sequence of the blocks that a row keeps.

A program takes BLOCK_H query heads of one KV head and one class, at BLOCK_Q positions: a tile of BLOCK_M rows.
Positions are absolute, so a tile lies in the pattern where its tokens lie in the sequence. The columns that the tile
needs are numbered by slots: first the far ones, which every row keeps whole, then the edge. The index map says which
column a slot holds. Tiles of BLOCK_N keys run through the slots: without any mask while they are far, then with the
exact rule.

Where query heads of a KV head keep different far columns and the same near ones, `shares` gives the near ones to
programs of all these heads, and leaves the far ones to those of a class.
"""

import triton
import triton.language as tl

from .combine import is_last, merge
from .shares import merged, own_keys, share
from .tiles import (
    BLOCK,
    BLOCK_D,
    BLOCK_V,
    HEAD_DIM,
    LN_2,
    V_HEAD_DIM,
    capped,
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


@triton.jit
def attend(b_q, b_k, b_v, m_keep, b_out, b_max, b_sum, scale, PRECISION: tl.constexpr):
    """Add a tile of keys to the running output, maximum (in powers of 2) and sum: one step of online softmax."""
    b_s = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION)  # [BLOCK_M, BLOCK_N]
    b_s, scale = capped(b_s, scale)
    if m_keep is None:
        b_new = tl.maximum(b_max, tl.max(b_s, 1) * scale)  # [BLOCK_M]
        b_p = tl.exp2(b_s * scale - b_new[:, None])  # [BLOCK_M, BLOCK_N]
        b_old = tl.exp2(b_max - b_new)  # [BLOCK_M]
    else:
        b_s = tl.where(m_keep, b_s * scale, float("-inf"))
        b_new = tl.maximum(b_max, tl.max(b_s, 1))
        b_base = tl.where(b_new == float("-inf"), 0.0, b_new)  # rows that have kept nothing so far
        b_p = tl.exp2(b_s - b_base[:, None])
        b_old = tl.exp2(b_max - b_base)
    b_out = tl.dot(b_p.to(b_v.dtype), b_v, b_out * b_old[:, None], input_precision=PRECISION)  # [BLOCK_M, BLOCK_V]
    return b_out, b_new, b_sum * b_old + tl.sum(b_p, 1)


# fmt: off
RUNTIME_INTS = [
    "q_len", "kv_len", "q_start", "kv_start", "splits", "s_pages", "s_qb", "s_qh", "s_qn", "s_kb", "s_kh", "s_kn",
    "s_vb", "s_vh", "s_vn", "s_ob", "s_oh", "s_on", "s_os", "s_lb", "s_lh", "s_ls", "q_total",
]
# fmt: on


@triton.jit(do_not_specialize=RUNTIME_INTS)  # one binary serves every length
def attn_fwd(
    q,  # [batch, heads, q_len, HEAD_DIM], or packed [total_q, heads, HEAD_DIM] when IS_PACKED
    k,  # [batch, kv_heads, kv_len, HEAD_DIM], or packed likewise, or pages [pages, PAGE, kv_heads, HEAD_DIM]
    v,  # the same, of V_HEAD_DIM
    out,  # as q, of V_HEAD_DIM
    lse,  # [batch, heads, q_len], or [heads, total_q]
    groups,  # [groups, 2 + BLOCK_H]: KV head, the class's place in `pattern`, its query heads (-1: none)
    shares,  # None, or [groups, SHARE]: what each program has of the keys of its KV head, see shares.py
    pattern,  # what index_map reads
    columns,
    q_starts,  # [batch + 1] where a packed request's queries begin
    kv_starts,  # [batch + 1] where its keys begin; when paged, [batch] how many there are
    pages,  # [batch, s_pages] where its pages are
    parts,  # [tiles, splits, MERGED, V_HEAD_DIM] float32: what each program has of a tile, when the last merges them
    lses,  # [tiles, splits, MERGED] float32
    counts,  # [tiles] int32: 0, and again 0 at the end
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
    q_total,  # packed rows, of which some may belong to no sequence; 0: none does
    splits,  # parts that a row has, each of one of the programs that share its keys; unless the last of them merges,
    # the part of number n of `out` and `lse` lies n * s_os, n * s_ls further
    BLOCK_Q: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PAGE: tl.constexpr,  # keys in a page; 0 when k and v are not paged
    ALIGN: tl.constexpr,
    IS_PACKED: tl.constexpr,
    IS_LOOKED_UP: tl.constexpr,  # whether finding a key reads memory: a table, or pages
    MERGED: tl.constexpr,  # rows of a tile that the last program merges; 0: none does
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    i_class = tl.load(groups + tl.program_id(1) * (2 + BLOCK_H) + 1)  # while the request is looked up
    i_batch = tl.program_id(2).to(tl.int64)
    q_first, kv_first = 0, 0
    if IS_PACKED:
        q_first, q_len, kv_first, kv_len = request(i_batch, q_starts, kv_starts, PAGE)
        q_start = kv_len - q_len
    q_stop = q_start + q_len
    kv_stop = kv_start + kv_len
    i_tile, tiles, i_split, sharers, i_part = share(shares, splits)
    if IS_PACKED:
        p_out, p_lse = out + i_part.to(tl.int64) * (s_os // ALIGN) * ALIGN, lse + i_part.to(tl.int64) * s_ls
        s_h, s_n = s_oh * ALIGN, s_on * ALIGN
        sums = p_lse, s_lh
        clear_queries(
            p_out, s_h, s_n, *sums, groups, q_starts, q_total, i_tile, tiles, BLOCK_Q, BLOCK_H, V_HEAD_DIM, BLOCK_V
        )

    # this tile's rows: the last positions keep most keys, so they go first
    i_tile = (q_stop - (q_start & -BLOCK_Q) + BLOCK_Q - 1) // BLOCK_Q - 1 - i_tile
    if (i_tile < 0) | (q_len == 0):
        return
    t_base, o_m, o_t, i_head, m_q, i_kv, p_group = tile_of(i_tile, groups, q_start, q_stop, BLOCK_Q, BLOCK_H)

    # the columns that they keep
    t_first = tl.maximum(t_base, q_start)
    t_last = tl.minimum(t_base + BLOCK_Q, q_stop) - 1
    if shares is not None:
        kv_first, kv_start, kv_stop = own_keys(shares, t_last, kv_first, kv_start, kv_stop)
    pattern += i_class
    n_far, n_slots, places, rule = columns_of(pattern, columns, t_first, t_last, kv_start, kv_stop)
    far_tiles = n_far * BLOCK // BLOCK_N
    all_tiles = (n_slots * BLOCK + BLOCK_N - 1) // BLOCK_N
    tile_from = all_tiles * i_split // sharers
    tile_to = all_tiles * (i_split + 1) // sharers

    # addresses: 64 bits to the tile's first row, 32 from there
    i_row = q_first + (t_base - q_start).to(tl.int64)
    o_row = o_m % BLOCK_Q
    p_q = q + (i_batch * s_qb + i_head * s_qh + i_row * s_qn) * ALIGN + o_row * (s_qn * ALIGN)
    b_q = load_rows(p_q[:, None], 0, m_q, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    if PAGE:
        pages += i_batch * s_pages
        k += i_kv * s_kh * ALIGN
        v += i_kv * s_vh * ALIGN
    else:
        k += (i_batch * s_kb + i_kv * s_kh + kv_first * s_kn) * ALIGN
        v += (i_batch * s_vb + i_kv * s_vh + kv_first * s_vn) * ALIGN

    b_out = tl.zeros([BLOCK_Q * BLOCK_H, BLOCK_V], tl.float32)
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
        b_k = load_keys(k, row, s_kb * ALIGN, s_kn * ALIGN, None, PAGE, RUN, BLOCK_N, HEAD_DIM, BLOCK_D)
        b_v = load_keys(v, row, s_vb * ALIGN, s_vn * ALIGN, None, PAGE, RUN, BLOCK_N, V_HEAD_DIM, BLOCK_V)
        b_out, b_max, b_sum = attend(b_q, b_k, b_v, None, b_out, b_max, b_sum, scale, PRECISION)

    # edge tiles: the exact rule
    late = 0
    for tile in tl.range(tl.maximum(tile_from, far_tiles), tile_to, num_stages=2):
        late = late_zero(tile)
        row, m_n, m_keep = edge(
            tile, n_slots, places, rule, o_t, t_first, t_last, kv_start, kv_stop, pages, PAGE, RUN, BLOCK_Q, BLOCK_N
        )
        m_keep &= m_q[:, None]  # [BLOCK_M, BLOCK_N]
        b_k = load_keys(k, row, s_kb * ALIGN, s_kn * ALIGN, m_n, PAGE, RUN, BLOCK_N, HEAD_DIM, BLOCK_D)
        b_v = load_keys(v, row, s_vb * ALIGN, s_vn * ALIGN, m_n, PAGE, RUN, BLOCK_N, V_HEAD_DIM, BLOCK_V)
        b_out, b_max, b_sum = attend(b_q, b_k, b_v, m_keep, b_out, b_max, b_sum, scale, PRECISION)

    b_lse = (b_max + tl.log2(b_sum)) * LN_2  # [BLOCK_M], -inf where nothing was kept
    b_out = b_out / tl.where(b_sum == 0.0, 1.0, b_sum)[:, None]
    o_d = tl.arange(0, BLOCK_V)[None, :]
    if MERGED:
        i_shared, i_part, programs, p_heads, m_part = merged(
            groups, shares, splits, o_m, late, BLOCK_Q, BLOCK_H, MERGED
        )
        i_first = i_shared.to(tl.int64) * splits
        i_part = (i_first + i_part) * MERGED + o_m  # its rows that are none of a request are not read
        tl.store(parts + i_part[:, None] * V_HEAD_DIM + o_d, b_out, mask=m_part[:, None] & (o_d < V_HEAD_DIM))
        tl.store(lses + i_part, b_lse, mask=m_part)
        if is_last(counts + i_shared, programs):
            row = out + (i_batch * s_ob + i_row * s_on) * ALIGN, s_oh * ALIGN, s_on * ALIGN
            lse_row = lse + i_batch * s_lb + i_row, s_lh
            merge(parts, lses, i_first, splits, *row, *lse_row, p_heads, t_base, q_start, q_stop, BLOCK_Q, MERGED)
    else:
        o_row = o_m % BLOCK_Q + late  # the rows once more, see late_zero
        o_t = t_base + o_row
        m_q = (o_t >= q_start) & (o_t < q_stop)
        if BLOCK_H > 1:  # loaded again, not kept
            i_head = tl.load(p_group + 2 + o_m // BLOCK_Q + late).to(tl.int64)
            m_q &= i_head >= 0
        i_part = i_part.to(tl.int64)
        # a part is a number of whole rows: what is true of s_on is true of s_os, and stores of 16 bytes need to know
        o_out = i_part * (s_os // ALIGN) + i_batch * s_ob + i_head * s_oh + i_row * s_on
        p_out = out + o_out * ALIGN + o_row * (s_on * ALIGN)
        tl.store(p_out[:, None] + o_d, b_out.to(out.dtype.element_ty), mask=m_q[:, None] & (o_d < V_HEAD_DIM))
        tl.store(lse + i_part * s_ls + i_batch * s_lb + i_head * s_lh + i_row + o_row, b_lse, mask=m_q)
