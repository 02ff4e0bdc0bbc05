"""The newest token of each sequence in a cache that holds only what later rows can still read: it is put where a place
is free, and attends what is held.

A bank has some rows, each a KV head of an entry of the batch, with equally many places and a spare one. What it holds
of a key: the last query of each class of the KV head's query heads that may attend it, and NaN where it was not finite.
"""

import triton
import triton.language as tl

from .combine import is_last, of_parts
from .forward import attend
from .sinks import with_sinks
from .tiles import BLOCK, BLOCK_D, BLOCK_V, HEAD_DIM, LN_2, V_HEAD_DIM, load_rows

NEVER = tl.constexpr(-1)
LATEST = tl.constexpr((1 << 31) - 1)  # stands for all queries beyond
SCANNED = tl.constexpr(2048)  # places that are looked at together


@triton.jit
def row_of(index, kv_heads):
    """(i_row, i_batch, i_kv): this program's row of the bank, its entry and its KV head."""
    i_row = tl.program_id(0).to(tl.int64)
    i = tl.load(index + i_row)
    return i_row, i // kv_heads, i % kv_heads


@triton.jit
def clean(p, o_d, DIM: tl.constexpr):
    """(numbers, are_odd): the numbers at p, 0 for those that are not finite, and whether there are any of these."""
    b = tl.load(p + o_d, mask=o_d < DIM, other=0.0)
    m_finite = tl.abs(b.to(tl.float32)) < float("inf")
    return tl.where(m_finite, b, 0.0).to(b.dtype), tl.max(tl.where(m_finite, 0, 1), 0)


@triton.jit
def last_queries(t, table, windows, sinks, o_class, m_class, blocks):
    """The last query of each class that may attend token t. [BLOCK_C], NEVER where there is no class."""
    b_last = tl.load(table + o_class * blocks + t // BLOCK, mask=m_class, other=NEVER)
    if windows is not None:
        b_window = tl.load(windows + o_class, mask=m_class, other=0)
        b_reach = t + tl.minimum(b_window - 1, LATEST - t)
        b_last = tl.maximum(b_last, tl.where(b_window > 0, b_reach, NEVER))
    if sinks is not None:
        b_last = tl.where(t < tl.load(sinks + o_class, mask=m_class, other=0), LATEST, b_last)
    return b_last


@triton.jit(do_not_specialize=["kv_heads", "classes", "used", "places", "blocks", "s_kb", "s_kh", "s_vb", "s_vh"])
def attn_cache_put(
    k,  # [batch, kv_heads, HEAD_DIM] the newest tokens
    v,  # [batch, kv_heads, V_HEAD_DIM]
    held_k,  # [rows, places + 1, HEAD_DIM]
    held_v,  # [rows, places + 1, V_HEAD_DIM]
    until,  # [rows, classes, places + 1] int32
    odd,  # [rows, places + 1]
    index,  # [rows] int64: which of all rows these are
    lengths,  # [batch] int64: tokens before
    longer,  # [batch] int64, written by all banks together: with the newest
    news,  # [batch] int64: 1, or 0 where there is no new token
    table,  # [kv_heads, classes, blocks] int32: the last query of what is kept in whole blocks
    windows,  # [kv_heads, classes] int32: tokens that a window reaches; None: there is none
    sinks,  # [kv_heads, classes] int32: first tokens that are always kept; None: there are none
    kv_heads,
    classes,
    used,  # places that were ever taken, with this token's
    places,  # without the spare one
    blocks,
    s_kb,
    s_kh,
    s_vb,
    s_vh,
    BLOCK_C: tl.constexpr,  # a power of two, not below classes
):
    i_row, i_batch, i_kv = row_of(index, kv_heads)
    length = tl.load(lengths + i_batch)
    count = tl.load(news + i_batch)
    if i_kv == 0:
        tl.store(longer + i_batch, length + count)
    if count == 0:
        return
    t = length.to(tl.int32)
    o_c = tl.arange(0, BLOCK_C)
    m_c = o_c < classes
    b_last = last_queries(t, table, windows, sinks, i_kv * classes + o_c, m_c, blocks)  # [BLOCK_C]

    # the last used place whose key nobody needs any more, of which there is one; the spare one for a token that nobody
    # needs. From the end on, since what is kept for ever fills places as they come.
    until += i_row * classes * (places + 1)
    place, stop = used * 0 - 1, tl.where(tl.max(b_last, 0) >= t, used, 0)
    while stop > 0:
        o_p = stop - 1 - tl.arange(0, SCANNED)
        b_until = tl.full([SCANNED], NEVER, tl.int32)
        for c in range(classes):
            p_until = until + tl.cast(c, tl.int64) * (places + 1) + o_p
            b_until = tl.maximum(b_until, tl.load(p_until, mask=o_p >= 0, other=LATEST))
        place = tl.max(tl.where(b_until < t, o_p, -1), 0)
        stop = tl.where(place >= 0, 0, stop - SCANNED)
    place = tl.where(place >= 0, place, places)

    o_k, o_v = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_V)
    b_k, k_odd = clean(k + i_batch * s_kb + i_kv * s_kh, o_k, HEAD_DIM)
    b_v, v_odd = clean(v + i_batch * s_vb + i_kv * s_vh, o_v, V_HEAD_DIM)
    i_place = i_row * (places + 1) + place
    tl.store(held_k + i_place * HEAD_DIM + o_k, b_k, mask=o_k < HEAD_DIM)
    tl.store(held_v + i_place * V_HEAD_DIM + o_v, b_v, mask=o_v < V_HEAD_DIM)
    tl.store(odd + i_place, tl.where(k_odd + v_odd > 0, float("nan"), 0.0).to(odd.dtype.element_ty))
    tl.store(until + o_c.to(tl.int64) * (places + 1) + place, b_last, mask=m_c)


# fmt: off
RUNTIME_INTS = [
    "kv_heads", "heads", "share", "head_offset", "classes", "used", "places", "s_qb", "s_qh", "s_ob", "s_oh", "splits",
]
# fmt: on


@triton.jit(do_not_specialize=RUNTIME_INTS, do_not_specialize_on_alignment=["sinks"])
def attn_cache_read(
    q,  # [batch, heads, HEAD_DIM] of the newest tokens
    out,  # [batch, heads, V_HEAD_DIM] written
    held_k,  # as above
    held_v,
    until,
    odd,
    index,
    lengths,  # [batch] int64: tokens before
    news,
    sinks,  # [heads] logits; None: there are none
    parts,  # float32 [tiles, splits, BLOCK_H, V_HEAD_DIM] what each program has of a tile, and then the LSEs; None: all
    counts,  # [tiles] int32: 0, and again 0 at the end
    scale,  # times log2(e)
    kv_heads,
    heads,
    share,  # query heads of a KV head, in the pattern
    head_offset,  # how many of the first KV head's are not present
    classes,
    used,
    places,
    s_qb,
    s_qh,
    s_ob,
    s_oh,
    splits,  # programs that share the keys of a tile
    BLOCK_H: tl.constexpr,  # query heads of a tile
    BLOCK_N: tl.constexpr,
    ARE_ALIKE: tl.constexpr,  # whether there is one class
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    i_row, i_batch, i_kv = row_of(index, kv_heads)
    i_split, i_tile = tl.program_id(2), i_row * tl.num_programs(1) + tl.program_id(1)
    t = tl.load(lengths + i_batch).to(tl.int32)
    h_first = i_kv * share - head_offset
    o_h = tl.maximum(h_first, 0) + tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    m_h = (o_h < h_first + share) & (o_h < heads)  # [BLOCK_H]
    o_class = o_h - tl.maximum(h_first, 0)
    o_d = tl.arange(0, BLOCK_V)[None, :]
    p_out = out + (i_batch * s_ob + o_h.to(tl.int64) * s_oh)[:, None] + o_d
    m_out = m_h[:, None] & (o_d < V_HEAD_DIM)
    if tl.load(news + i_batch) == 0:
        if i_split == 0:
            tl.store(p_out, tl.zeros([BLOCK_H, BLOCK_V], tl.float32).to(out.dtype.element_ty), mask=m_out)
        return

    b_q = load_rows(q + i_batch * s_qb, o_h.to(tl.int64)[:, None] * s_qh, m_h, HEAD_DIM, BLOCK_D)
    b_out = tl.zeros([BLOCK_H, BLOCK_V], tl.float32)
    b_max = tl.full([BLOCK_H], float("-inf"), tl.float32)
    b_sum = tl.zeros([BLOCK_H], tl.float32)
    i_place = i_row * (places + 1)
    held_k += i_place * HEAD_DIM
    held_v += i_place * V_HEAD_DIM
    until += i_place * classes
    odd += i_place
    tiles = (used + BLOCK_N - 1) // BLOCK_N
    for tile in tl.range(tiles * i_split // splits, tiles * (i_split + 1) // splits, num_stages=STAGES):
        i_n, o_row = tl.cast(tile, tl.int64) * BLOCK_N, tl.arange(0, BLOCK_N)[:, None]
        o_n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        m_n = o_n < used
        # what is there is finite, whether it is needed or not
        b_k = load_rows(held_k + i_n * HEAD_DIM, o_row * HEAD_DIM, m_n, HEAD_DIM, BLOCK_D)  # [BLOCK_N, BLOCK_D]
        b_v = load_rows(held_v + i_n * V_HEAD_DIM, o_row * V_HEAD_DIM, m_n, V_HEAD_DIM, BLOCK_V)  # [BLOCK_N, BLOCK_V]
        if ARE_ALIKE:
            b_until = tl.load(until + o_n, mask=m_n, other=NEVER)[None, :]
        else:
            p_until = until + o_class.to(tl.int64)[:, None] * (places + 1) + o_n[None, :]
            b_until = tl.load(p_until, mask=m_h[:, None] & m_n[None, :], other=NEVER)
        m_keep = (b_until >= t) & m_h[:, None]  # [BLOCK_H, BLOCK_N]
        b_scale = scale + tl.load(odd + o_n, mask=m_n, other=0.0).to(tl.float32)[None, :]  # NaN for odd keys
        b_out, b_max, b_sum = attend(b_q, b_k, b_v, m_keep, b_out, b_max, b_sum, b_scale, PRECISION)

    b_lse = (b_max + tl.log2(b_sum)) * LN_2  # [BLOCK_H], -inf where nothing was kept
    b_out = b_out / tl.where(b_sum == 0.0, 1.0, b_sum)[:, None]
    if parts is not None:
        i_first = i_tile * splits
        lses = parts + tl.num_programs(0).to(tl.int64) * tl.num_programs(1) * splits * (BLOCK_H * V_HEAD_DIM)
        o_part = (i_first + i_split) * BLOCK_H + tl.arange(0, BLOCK_H)
        tl.store(parts + o_part[:, None] * V_HEAD_DIM + o_d, b_out, mask=m_out)
        tl.store(lses + o_part, b_lse, mask=m_h)
        if not is_last(counts + i_tile, splits):
            return
        b_out, b_lse = of_parts(parts, lses, i_first, splits, m_h, BLOCK_H)
    if sinks is not None:
        b_sink = tl.load(sinks + o_h, mask=m_h, other=0.0).to(tl.float32)
        b_share, b_lse = with_sinks(b_lse, b_sink)
        b_out *= b_share[:, None]
    tl.store(p_out, b_out.to(out.dtype.element_ty), mask=m_out)
