"""Which slots of rows an item of the fused backward for Hopper reads, and what each of its consumers keeps of them.

An item has 128 keys: of neighbouring columns, or of one stride's columns. Slots have 64 rows, and begin at multiples
of 64 whatever the blocks are. Words are those of `row_slots.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..kernels.row_map import STRIDES
from ..pattern import BLOCK, CAUSAL
from .masks import keeps_blocks
from .row_slots import CHUNK, EXACT, FINE, KEYS, PIECE, ROWS, SIDE, by_tokens

Stride = tuple[int, int, int, int, int]  # of STRIDES: period, residue, distances from and to, first column
Ends = tuple[int, int, int]  # positions of the first query, behind the last, and behind the last key
Listed = tuple[Tensor, Tensor, Tensor, Tensor]


def item_slots(klass: int, stride: Stride | None, first: Tensor, every: int, ends: Ends) -> Listed:
    """For tiles of keys that begin at columns `first` [tiles] and take each `every`-th one: how many slots each has,
    int64 [tiles]; the slots' numbers, the last first, int32 [entries], and words, int32 [entries, 2]; and which pieces
    of its keys any slot keeps, a bit for each, int64 [tiles]."""
    slot = torch.arange(ends[0] // ROWS, -(-ends[1] // ROWS), device="cpu").flip(0)
    piece = torch.arange(KEYS // PIECE, device="cpu") * PIECE
    counts, slots, words, present = [], [], [], []
    for j in first.split(max(1, CHUNK // (2 * SIDE * SIDE * max(1, len(slot))))):
        u = (j[:, None] + piece // BLOCK * every) * BLOCK + piece % BLOCK  # [tiles, pieces]
        found, kept = _words(klass, stride, slot, u, ends)
        is_kept = (found != 0).any(-1)
        counts.append(is_kept.sum(1))
        slots.append(slot.expand_as(is_kept)[is_kept].int())
        words.append(found[is_kept])
        present.append((kept.long() << torch.arange(kept.shape[1], device="cpu")).sum(1))
    none = torch.zeros(0, dtype=torch.int64, device="cpu")
    return (
        torch.cat([none, *counts]),
        torch.cat([none.int(), *slots]),
        torch.cat([none.int().new_zeros(0, 2), *words]),
        torch.cat([none, *present]),
    )


def _words(klass: int, stride: Stride | None, slot: Tensor, u: Tensor, ends: Ends) -> tuple[Tensor, Tensor]:
    """What slots keep of tiles whose pieces of keys begin at u: words int32 [tiles, slots, 2], and whether any slot
    keeps a piece [tiles, pieces]."""
    q_start, q_stop, kv_stop = ends
    t = (slot[:, None] * ROWS + torch.arange(SIDE, device="cpu") * PIECE).view(1, -1)
    keys = u.reshape(-1, 1)
    i, j = t.div(BLOCK, rounding_mode="floor"), keys.div(BLOCK, rounding_mode="floor")
    if stride is None:
        others = torch.zeros((), dtype=torch.bool, device="cpu")
        for strides in STRIDES:
            if (other := strides[klass]) is not None:
                others = others | in_stride(other, i, j)
        # of rows that are queries: what others would keep may be no numbers
        some, all_of = by_tokens(klass, t.clamp(min=q_start), (t + PIECE).clamp(max=q_stop) - 1, keys)
        whole = (keeps_blocks(klass, i, j) | all_of) & ~others
        part = some & ~whole & ~others
    else:
        whole = in_stride(stride, i, j)
        part = torch.zeros_like(whole)
    is_there = (t + PIECE > q_start) & (t < q_stop) & (keys < kv_stop)
    is_cut = (t < q_start) | (t + PIECE > q_stop) | (keys + PIECE > kv_stop)
    if CAUSAL:
        is_there = is_there & (keys < t + PIECE)
        is_cut = is_cut | (keys + PIECE > t + 1)
    whole, part = whole & is_there, part & is_there

    def by_words(x: Tensor) -> Tensor:
        return x.view(len(u), 2, SIDE, len(slot), SIDE).permute(0, 3, 1, 4, 2).flatten(3)  # bits, those of a row first

    bits = (by_words(whole).int() << torch.arange(SIDE * SIDE, dtype=torch.int32, device="cpu")).sum(3)
    words = bits + by_words(whole & is_cut).any(3) * FINE + by_words(part).any(3) * EXACT
    return words.int(), (whole | part).any(1).view(u.shape)


def in_stride(stride: Stride, i: Tensor, j: Tensor) -> Tensor:
    """Whether rows i read columns j by this stride; i and j broadcast."""
    every, residue, low, high, first = stride
    return ((j - residue) % every == 0) & (j >= first) & (i - j >= low) & (i - j < high)
