"""Merge partial attention over key ranges: the sum of the parts, each weighted by exp(its LSE - the LSE of all).

Either the last program that shares the keys of a tile does it, or a launch of its own.
"""

import triton
import triton.language as tl

from .tiles import BLOCK_V, V_HEAD_DIM

MOST_SPLITS = tl.constexpr(64)  # that a program merges; a power of two
LOADED = tl.constexpr(4096)  # numbers that are on their way at once


@triton.jit
def is_last(p_count, splits):
    """Whether all other programs of `splits` have been here: then what they stored before can be loaded, past the L1
    cache, and the count is 0 again."""
    tl.debug_barrier()  # the threads of this program have stored what they had
    is_last = tl.atomic_add(p_count, 1, sem="acq_rel", scope="gpu") == splits - 1
    if is_last:
        tl.store(p_count, 0)
    return is_last


@triton.jit
def merge(
    parts, lses, i_first, splits, out, s_oh, s_on, lse, s_lh, p_heads, t_base, q_start, q_stop,
    BLOCK_Q: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Store the attention of a tile's rows and their LSE, from parts i_first, i_first + 1 and so on. `out` and `lse`
    are where head 0 has the tile's first row."""
    o_m = tl.arange(0, ROWS)
    o_row = o_m % BLOCK_Q
    i_head = tl.load(p_heads + o_m // BLOCK_Q).to(tl.int64)  # [ROWS]
    m_row = (i_head >= 0) & (t_base + o_row >= q_start) & (t_base + o_row < q_stop)
    b_out, b_lse = of_parts(parts, lses, i_first, splits, m_row, ROWS)
    o_d = tl.arange(0, BLOCK_V)
    p_out = out + i_head * s_oh + o_row * s_on
    m_out = m_row[:, None] & (o_d < V_HEAD_DIM)[None, :]
    tl.store(p_out[:, None] + o_d[None, :], b_out.to(out.dtype.element_ty), mask=m_out)
    tl.store(lse + i_head * s_lh + o_row, b_lse, mask=m_row)


@triton.jit
def of_parts(parts, lses, i_first, splits, m_row, ROWS: tl.constexpr):
    """The attention [ROWS, BLOCK_V] of rows and their LSE, from parts i_first, i_first + 1 and so on: in this order,
    whichever program does it."""
    AT_ONCE: tl.constexpr = max(1, LOADED // (ROWS * BLOCK_V))  # parts
    o_m = tl.arange(0, ROWS)
    o_d = tl.arange(0, BLOCK_V)
    lses += i_first * ROWS
    parts += i_first * (ROWS * V_HEAD_DIM)
    o_all = tl.arange(0, MOST_SPLITS)[:, None]
    m_all = (o_all < splits) & m_row[None, :]
    b_all = tl.load(lses + o_all * ROWS + o_m[None, :], mask=m_all, other=float("-inf"), cache_modifier=".cg")
    most = tl.max(b_all, 0)  # [ROWS]
    base = tl.where(most == float("-inf"), 0.0, most)  # nothing was kept anywhere
    total = tl.sum(tl.exp(b_all - base[None, :]), 0)
    b_out = tl.zeros([ROWS, BLOCK_V], tl.float32)
    for first in range(0, splits, AT_ONCE):
        o_s = first + tl.arange(0, AT_ONCE)[:, None]
        m_s = (o_s < splits) & m_row[None, :]
        o_part = o_s * ROWS + o_m[None, :]  # [AT_ONCE, ROWS]
        p_part = parts + (o_part * V_HEAD_DIM)[:, :, None] + o_d[None, None, :]
        m_part = m_s[:, :, None] & (o_d < V_HEAD_DIM)[None, None, :]
        b_part = tl.load(p_part, mask=m_part, other=0.0, cache_modifier=".cg")  # [AT_ONCE, ROWS, BLOCK_V]
        b_lse = tl.load(lses + o_part, mask=m_s, other=float("-inf"), cache_modifier=".cg")
        b_part = tl.where((b_lse == float("-inf"))[:, :, None], 0.0, b_part)  # nothing is added, even if it is NaN
        b_out += tl.sum(b_part * tl.exp(b_lse - base[None, :])[:, :, None], 0)
    return b_out / tl.where(total == 0.0, 1.0, total)[:, None], base + tl.log(total)


@triton.jit(do_not_specialize=["splits", "s_pn", "s_ph", "s_ps", "s_ls", "s_lh", "s_on", "s_oh", "s_wh"])
def attn_combine(
    parts,  # [splits, rows, heads, V_HEAD_DIM] float32
    lses,  # [splits, heads, rows]
    out,  # [rows, heads, V_HEAD_DIM]
    lse,  # [heads, rows]
    splits,
    s_ps,
    s_pn,
    s_ph,
    s_ls,
    s_lh,
    s_on,
    s_oh,
    s_wh,
    SPLITS: tl.constexpr,  # a power of two, not below splits
):
    i_row = tl.program_id(0).to(tl.int64)
    i_head = tl.program_id(1).to(tl.int64)
    o_s = tl.arange(0, SPLITS)
    o_d = tl.arange(0, BLOCK_V)
    m_s = o_s < splits
    b_lse = tl.load(lses + o_s * s_ls + i_head * s_lh + i_row, mask=m_s, other=float("-inf"))  # [SPLITS]
    most = tl.max(b_lse, 0)
    base = tl.where(most == float("-inf"), 0.0, most)  # nothing was kept anywhere
    b_weight = tl.exp(b_lse - base)
    total = tl.sum(b_weight, 0)
    m_s &= b_lse != float("-inf")  # a part without keys adds nothing, whatever it holds
    p_part = parts + o_s[:, None] * s_ps + i_row * s_pn + i_head * s_ph + o_d[None, :]
    b_part = tl.load(p_part, mask=m_s[:, None] & (o_d < V_HEAD_DIM)[None, :], other=0.0)  # [SPLITS, BLOCK_V]
    b_out = tl.sum(b_part * b_weight[:, None], 0) / tl.where(total == 0.0, 1.0, total)
    tl.store(out + i_row * s_on + i_head * s_oh + o_d, b_out.to(out.dtype.element_ty), mask=o_d < V_HEAD_DIM)
    tl.store(lse + i_head * s_wh + i_row, base + tl.log(total))
