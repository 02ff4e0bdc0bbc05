"""The memory of a KV cache: places for the keys and values of some KV heads, each with the last query that needs it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .lifetime import NEVER, last_query
from .pattern import BLOCK


@dataclass
class Bank:
    """KV heads with equally many places. A place is free when its last query has been."""

    kv_heads: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]  # [kv head][query head of it]
    classes: tuple[tuple[int, ...], ...]  # of these query heads
    k: Tensor  # [batch, kv heads, places, dim]
    v: Tensor
    last: Tensor  # int64 [kv heads, query heads, places]: the last query that may attend what is there

    @staticmethod
    def empty(groups: dict[int, tuple[int, ...]], class_of: tuple[int, ...], like: Tensor) -> Bank:
        """A bank without places for KV heads and their query heads, and for keys like `like` [batch, dim]."""
        kv_heads, heads = tuple(groups), tuple(groups.values())
        classes = tuple(tuple(class_of[head] for head in group) for group in heads)
        k, v = (like.new_zeros(like.shape[0], len(kv_heads), 0, like.shape[1]) for _ in range(2))
        last = torch.full((len(kv_heads), len(classes[0]), 0), NEVER, device=like.device)
        return Bank(kv_heads, heads, classes, k, v, last)

    @property
    def places(self) -> int:
        return self.k.shape[2]

    @property
    def needed(self) -> Tensor:
        """The last query of any head that needs what is in a place: [kv heads, places]."""
        return self.last.amax(1)

    def lifetimes(self, tokens: Tensor) -> Tensor:
        """The last query that may attend each token: [kv heads, query heads, tokens]."""
        known = {klass: last_query(klass, tokens) for group in self.classes for klass in group}
        return torch.stack([torch.stack([known[klass] for klass in group]) for group in self.classes])

    def peak(self, length: int) -> Tensor:
        """The most places that a sequence of `length` tokens ever takes: [kv heads]."""
        tokens = torch.arange(length, device=self.k.device)
        last = self.lifetimes(tokens).amax(1)  # token u is live after u + 1 … last + 1 tokens
        changes = (last >= tokens).long()
        ends = torch.where(last >= tokens, (last + 1).clamp(max=length), length)
        changes = torch.nn.functional.pad(changes, (0, 1)).scatter_add_(1, ends, -changes)
        return changes.cumsum(1).amax(1)

    def wanted(self, tokens: Tensor, length: int) -> Tensor:
        """How many places are taken after `length` tokens, of which these are the newest: [kv heads]."""
        old, new = self.needed, self.lifetimes(tokens).amax(1)
        return (old >= length - 1).sum(1) + (new >= length - 1).sum(1)

    def with_room(self, wanted: Tensor) -> list[Bank]:
        """This bank with so many places for each KV head [kv heads]; or, where these differ too much to be equally many
        without waste, the KV heads apart."""
        most, heads = int(wanted.max()), len(self.kv_heads)
        if most <= self.places:
            return [self]
        allowed = (int(wanted.sum()) * 5 // 4 + heads * BLOCK) // heads  # all of what a cache may allocate
        if most > allowed:
            return [bank for n, part in enumerate(self.split(wanted)) for bank in part.with_room(wanted[n : n + 1])]
        missing = allowed - self.places
        k, v = (torch.nn.functional.pad(x, (0, 0, 0, missing)) for x in (self.k, self.v))
        last = torch.nn.functional.pad(self.last, (0, missing), value=NEVER)
        return [Bank(self.kv_heads, self.heads, self.classes, k, v, last)]

    def put(self, k: Tensor, v: Tensor, last: Tensor, length: int) -> None:
        """Store new tokens, k and v [batch, kv heads, tokens, dim], where places are free after `length` tokens."""
        lives = last.amax(1) >= length - 1  # [kv heads, tokens]
        free = self.needed < length - 1
        rank = lives.cumsum(1) - 1
        head, token = lives.nonzero(as_tuple=True)
        place = free.int().argsort(dim=1, descending=True, stable=True)[head, rank[head, token]]
        self.k[:, head, place] = k[:, head, token]
        self.v[:, head, place] = v[:, head, token]
        self.last[head, :, place] = last[head, :, token]

    def split(self, wanted: Tensor) -> list[Bank]:
        """Every KV head in a bank of its own, with no more places than one for so many [kv heads] may have: what it had
        only because others are larger is given back."""
        parts = []
        for n, most in enumerate(wanted.tolist()):
            one = slice(n, n + 1)
            places = self.needed[n].argsort(descending=True, stable=True)[: most * 5 // 4 + BLOCK].sort().values
            k, v, last = (x[..., one, :, :].index_select(-2, places) for x in (self.k, self.v, self.last.mT))
            parts.append(Bank(self.kv_heads[one], self.heads[one], self.classes[one], k, v, last.mT.contiguous()))
        return parts

    def select(self, index: Tensor) -> Bank:
        """A copy with these entries of the batch."""
        k, v = self.k.index_select(0, index), self.v.index_select(0, index)
        return Bank(self.kv_heads, self.heads, self.classes, k, v, self.last.clone())
