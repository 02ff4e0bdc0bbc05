"""The lifetime of keys: the last query that may attend a key, and the number of keys that are live after N tokens."""

from __future__ import annotations

import functools
import math
from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

from ..pattern import BLOCK, CLASSES
from .masks import mask_rows

NEVER, FOREVER = -1, 1 << 62
LAST = (1 << 31) - 1  # a query that no sequence reaches: FOREVER in 32 bits


def last_query(klass: int, u: Tensor) -> Tensor:
    """The last query token that may attend key token u: NEVER where none may, FOREVER where there is no last one.

    For a causal class. Where the class is KV-monotone, token u is attended by u, u + 1, … up to this one, and by no
    other.
    """
    before, sink = _farthest(klass), CLASSES[klass]["sink"]
    last = last_query_of_block(klass, u // BLOCK)
    if before:
        last = torch.maximum(last, (u + (before - 1)).clamp(max=FOREVER))
    return torch.where(u < sink, FOREVER, last) if sink else last


def last_query_of_page(klass: int, pages: int, page_size: int) -> Tensor:
    """The greatest `last_query` of the tokens of each of the first pages: [pages]. What is kept in whole blocks is
    looked up for the blocks of a page alone, not for all of its tokens."""
    unit = math.gcd(page_size, BLOCK)
    j = torch.arange(pages * (page_size // unit), device="cpu") * unit // BLOCK
    last = last_query_of_block(klass, j).view(pages, page_size // unit).amax(1)
    first = torch.arange(pages, device="cpu") * page_size
    before, sink = _farthest(klass), CLASSES[klass]["sink"]
    if before:
        last = torch.maximum(last, (first + (page_size - 1) + (before - 1)).clamp(max=FOREVER))
    return torch.where(first < sink, FOREVER, last) if sink else last


def _farthest(klass: int) -> int:
    """How many tokens a window or a band reaches back, the query's own included; LAST without an end, 0 without
    either."""
    window, bands = CLASSES[klass]["window"], CLASSES[klass]["bands"]
    return max([window[0] if window else 0, *(LAST if high is None else high for _, high in bands)])


def last_query_of_block(klass: int, j: Tensor) -> Tensor:
    """`last_query` of the tokens of column j by what is kept in whole blocks: by all but the window and the sink that
    are given in tokens."""
    rules = CLASSES[klass]
    last = torch.full_like(j, NEVER)
    for term in rules["terms"]:
        last = torch.maximum(last, _last_of(term, j))
    if rules["chunk"]:
        last = torch.maximum(last, (j // rules["chunk"] + 1) * (rules["chunk"] * BLOCK) - 1)
    if rules["mask"] is not None:
        rows = _last_rows(rules["mask"], j.device)
        row = torch.where(j < len(rows), rows[j.clamp(max=len(rows) - 1)], NEVER)
        last = torch.maximum(last, torch.where(row >= j, (row + 1) * BLOCK - 1, NEVER))
    if rules["random"]:
        last = torch.full_like(j, FOREVER)  # any later row may draw the block
    return last


class Lifetimes:
    """`last_query` of several classes at once, on a device: a table of their columns, and what is given in tokens."""

    def __init__(self, classes: Sequence[Sequence[int]], device: torch.device) -> None:
        self.classes = classes

        def constant(of: Sequence[Sequence[int]]) -> Tensor:
            return torch.tensor(of, dtype=torch.int32, device="cpu").to(device)[:, :, None]

        windows = [[_farthest(klass) for klass in group] for group in classes]
        sinks = [[CLASSES[klass]["sink"] for klass in group] for group in classes]
        self._window = constant(windows) if any(map(any, windows)) else None
        self._sink = constant(sinks) if any(map(any, sinks)) else None
        self._of_blocks = torch.empty(len(classes), len(classes[0]), 0, dtype=torch.int32, device=device)

    def of(self, tokens: Tensor, end: int) -> Tensor:
        """The last query of each of the tokens, all below `end`: int32 [groups, classes of a group, *tokens], where
        LAST stands for all that lie beyond."""
        flat = tokens.flatten()
        last = self.tables(end)[0][:, :, flat // BLOCK]
        if self._window is not None:
            u = flat.to(torch.int32)
            last = torch.maximum(
                last, torch.where(self._window > 0, u + (self._window - 1).clamp(max=LAST - end), NEVER)
            )
        if self._sink is not None:
            last = torch.where(flat < self._sink, LAST, last)
        return last.unflatten(-1, tokens.shape)

    def tables(self, end: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What `of` computes from, for tokens below `end`, int32 [groups, classes of a group, …]: the last query by
        what is kept in whole blocks, for each block; how many tokens a window reaches, and how many first tokens are
        always kept, where there are any such."""
        if end > self._of_blocks.shape[2] * BLOCK:
            self._grow(2 * -(-end // BLOCK))
        return self._of_blocks, self._window, self._sink

    def _grow(self, blocks: int) -> None:
        j = torch.arange(blocks, device=self._of_blocks.device)
        known = {klass: last_query_of_block(klass, j) for group in self.classes for klass in group}
        table = torch.stack([torch.stack([known[klass] for klass in group]) for group in self.classes])
        self._of_blocks = table.clamp(max=LAST).to(torch.int32)


def live(classes: tuple[int, ...], length: int) -> int:
    """How many of `length` keys a query from the newest token's on may attend, under any of these classes."""
    return _live(classes, 1 << max(10, length.bit_length()))[length]


def most_live(groups: Sequence[tuple[int, ...]], length: int) -> tuple[list[int], int]:
    """The most keys that are live after any number of tokens up to `length`: of each group of classes, and of all
    together."""
    curves = [_live(classes, 1 << max(10, length.bit_length()))[: length + 1] for classes in groups]
    together = torch.stack([torch.frombuffer(curve, dtype=torch.int32) for curve in curves])
    return together.amax(1).tolist(), int(together.sum(0).max())


@functools.lru_cache(maxsize=256)
def _live(classes: tuple[int, ...], end: int) -> array[int]:
    """The live keys after 0, 1, … end - 1 tokens. Token u is live after u + 1 … last + 1 tokens."""
    u = torch.arange(end - 1, device="cpu")
    last = torch.stack([last_query(klass, u) for klass in classes]).amax(0)
    changes = torch.zeros(end + 1, dtype=torch.int32, device="cpu")
    changes[1:end] = (last >= u).int()
    dies = torch.where(last >= u, (last + 2).clamp(max=end), end)
    changes -= torch.bincount(dies, minlength=end + 1).int()
    return array("i", changes[:end].cumsum(0).tolist())


def _last_of(term: tuple, j: Tensor) -> Tensor:
    """The last token of the last row that keeps column j by this term."""
    (d_from, d_to, j_from, j_to, i_from, i_to), (every, offset, width, anchor) = term[:6], term[6:]
    last = torch.full_like(j, FOREVER if i_to is None else i_to - 1)
    if d_to is not None:
        last = torch.minimum(last, j + d_to - 1)
    first = (j + max(d_from or 0, 0)).clamp(min=i_from or 0)
    kept = (first <= last) & (j >= (j_from or 0))
    if j_to is not None:
        kept &= j < j_to
    if every > 1 and anchor == "j":
        kept &= (j - offset).remainder(every) < width
    elif every > 1:
        beyond = (last - j - offset).remainder(every) - (width - 1)
        last = torch.where((beyond > 0) & (last < FOREVER), last - beyond, last)
        kept &= first <= last
    token = torch.where(last < FOREVER, (last.clamp(max=FOREVER // BLOCK - 1) + 1) * BLOCK - 1, FOREVER)
    return torch.where(kept, token, NEVER)


@functools.cache
def _last_rows(mask: int, device: torch.device) -> Tensor:
    """The last row in which an explicit mask keeps each column, NEVER where none does: [columns]."""
    kept = mask_rows(mask, device)
    rows = torch.arange(len(kept), device=device)[:, None]
    return torch.where(kept, rows, NEVER).amax(0)
