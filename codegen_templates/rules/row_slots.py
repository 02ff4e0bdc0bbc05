"""Which slots of rows keep a tile of keys, and what of it: what dK and dV for Hopper read of a pattern that is a table.

A tile has 128 keys, 64 for each of two consumers, a slot 64 rows. What a slot keeps of a consumer's keys is a word: a
bit for each pair of pieces that is kept whole, FINE where the diagonal cuts one, EXACT where tokens keep a part of one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..pattern import BLOCK, CAUSAL, CLASSES
from .masks import FAR, keeps_blocks
from .tables import grown, room

ROWS, KEYS = 64, 128  # of a slot and of a tile: those of hopper/load_items.py
PIECE = min(BLOCK, ROWS)  # tokens that blocks keep alike
SIDE = ROWS // PIECE
CHUNK = 1 << 20  # pairs of pieces looked at together: their numbers stay in a processor's cache
WHOLE, FINE, EXACT = (1 << SIDE * SIDE) - 1, 1 << 20, 1 << 21  # those of hopper/row_masks.py

Slots = tuple[Tensor, Tensor, Tensor]
_kept: dict[tuple[int, int, int], tuple[int, int, Slots]] = {}


def row_slots(klass: int, first: int, stop: int, origin: int, tiles: int) -> Slots:
    """For tiles 0..tiles-1 of keys from position `origin` on, the slots from first to stop-1 that keep any of them:
    pointers int64 [n + 1], slots int32 [entries], sorted in each tile, and words int32 [entries, 2]. Built when a
    length asks for it and kept for shorter ones: there may be further tiles, and slots behind."""
    stop, tiles = max(room(stop), first), room(tiles)
    return grown(_kept, (klass, first, origin), stop, tiles, lambda: build(klass, first, stop, origin, tiles))


def build(klass: int, first: int, stop: int, origin: int, tiles: int) -> Slots:
    """The slots of exactly these tiles and rows."""
    counts, slots, words = [], [], []
    here = {"device": "cpu"}
    per_tile = 2 * SIDE * SIDE * max(1, stop - first)
    for tile in torch.arange(tiles, **here).split(max(1, CHUNK // per_tile)):
        own_first = max(first, int(tile[0]) * (KEYS // ROWS) + origin // ROWS) if CAUSAL else first
        slot = torch.arange(own_first, max(stop, own_first), **here)
        t = slot[:, None] * ROWS + torch.arange(SIDE, **here) * PIECE  # [slots, SIDE]
        u = origin + tile[:, None] * KEYS + torch.arange(2 * SIDE, **here) * PIECE  # [tiles, 2 * SIDE]
        found = _words(klass, t.view(1, -1), u.view(-1, 1), (len(tile), len(slot)))
        kept = (found != 0).any(-1)
        counts.append(kept.sum(1))
        slots.append(slot.expand_as(kept)[kept].int())
        words.append(found[kept])
    zero = torch.zeros(1, dtype=torch.int64, **here)
    pointers = torch.cat([zero, *counts]).cumsum(0)
    return pointers, torch.cat([zero[:0].int(), *slots]), torch.cat([zero[:0].int().new_zeros(0, 2), *words])


def _words(klass: int, t: Tensor, u: Tensor, shape: tuple[int, int]) -> Tensor:
    """The words of pairs of pieces that begin at t and u, in so many tiles and slots. int32 [tiles, slots, 2]"""
    whole = keeps_blocks(klass, t.div(BLOCK, rounding_mode="floor"), u.div(BLOCK, rounding_mode="floor"))
    some, every = by_tokens(klass, t, t + PIECE - 1, u)
    whole = whole | every
    part = some & ~whole
    is_cut = whole & (u + PIECE > t + 1) if CAUSAL else torch.zeros_like(whole)
    if CAUSAL:
        is_ahead = u > t  # pieces begin at multiples of their size
        whole, part, is_cut = whole & ~is_ahead, part & ~is_ahead, is_cut & ~is_ahead

    def by_words(x: Tensor) -> Tensor:
        return x.view(shape[0], 2, SIDE, shape[1], SIDE).permute(0, 3, 1, 4, 2).flatten(3)  # bits, those of a row first

    bits = (by_words(whole).int() << torch.arange(SIDE * SIDE, dtype=torch.int32, device="cpu")).sum(3)
    return (bits + by_words(is_cut).any(3) * FINE + by_words(part).any(3) * EXACT).int()


def by_tokens(klass: int, t: Tensor, t_last: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the parts given in tokens keep some, and all, of the keys of pieces that begin at u for the rows t to
    t_last, before the causal cut. What is cut off may be kept or not: it counts for neither."""
    rules = CLASSES[klass]
    low, high = t - u - (PIECE - 1), t_last - u  # distances
    if CAUSAL:
        low = low.clamp(min=0)
    some = torch.zeros(torch.broadcast_shapes(t.shape, u.shape), dtype=torch.bool, device=t.device)
    every = torch.zeros_like(some)
    spans = [(start, FAR if stop is None else stop) for start, stop in rules["bands"]]
    if rules["window"]:
        spans.append((1 - rules["window"][1], rules["window"][0]))
    for start, stop in spans:  # start <= distance < stop
        some |= (low < stop) & (high >= start)
        every |= (low >= start) & (high < stop)
    if rules["sink"]:
        some |= u < rules["sink"]
        every |= u + PIECE <= rules["sink"]
    return some, every
