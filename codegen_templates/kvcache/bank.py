"""The memory of a KV cache: places for the keys and values of some sequences and KV heads, and who still needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..pattern import BLOCK
from ..rules.lifetime import NEVER


@dataclass(eq=False)
class Bank:
    """Rows with equally many places; a row is a KV head of an entry of the batch. A place is free when the last query
    that needs what is there has been. One place a row is spare: what nobody needs is put there, so that no list of what
    is needed has to be made, for which a GPU would have to be waited for."""

    rows: tuple[int, ...]  # entry * KV heads + KV head, in order
    index: Tensor  # the same on the device
    are_all: bool  # whether these are all rows
    memory: tuple[Tensor, Tensor]  # K and V [rows, places + 1, width]
    until: Tensor  # int32 [rows, classes of its query heads, places + 1]: the last query that may attend what is there
    odd: Tensor  # [rows, places + 1]: NaN where a key or value was not finite, of which 0 is kept; else 0
    used: int = 0  # places from the first on that were ever taken; no others need to be read
    live: int = 0  # keys of the row that has the most, when it was looked at
    counts: Tensor | None = None  # zeros that kernels count in, once there are any

    @staticmethod
    def empty(rows: Sequence[int], of: int, memory: tuple[Tensor, Tensor], classes: int) -> Bank:
        """Free places in K and V [rows, places + 1, width] for some of so many rows."""
        k = memory[0]
        index = torch.tensor(rows, dtype=torch.int64, device="cpu").to(k.device, non_blocking=True)
        until = torch.full((len(rows), classes, k.shape[1]), NEVER, dtype=torch.int32, device=k.device)
        odd = torch.zeros(until.shape[::2], dtype=k.dtype, device=k.device)
        return Bank(tuple(rows), index, len(rows) == of, memory, until, odd)

    @property
    def places(self) -> int:
        return self.until.shape[2] - 1

    @property
    def k(self) -> Tensor:
        return self.memory[0][:, : self.used]

    @property
    def v(self) -> Tensor:
        return self.memory[1][:, : self.used]

    @property
    def last(self) -> Tensor:
        return self.until[..., : self.used]

    def pick(self, x: Tensor) -> Tensor:
        """This bank's rows of a tensor with one entry for every row."""
        return x if self.are_all else x.index_select(0, self.index)

    def put(self, k: Tensor, v: Tensor, odd: Tensor, last: Tensor, newest: Tensor) -> None:
        """Store the new tokens that are still needed when `newest` [rows] is the newest of all, where nothing is.

        k and v [rows, tokens, width], odd [rows, tokens], last [rows, classes, tokens]
        """
        newest = newest[:, None]
        lives = last.amax(1) >= newest  # [rows, tokens]
        free = self.until.amax(1) < newest  # [rows, places + 1]: the spare one always is
        if lives.shape[1] == 1:
            place = free.to(torch.uint8).argmax(1, keepdim=True)  # the first free place: `Room` has seen to one
        else:
            place = torch.searchsorted(free[:, :-1].cumsum(1), lives.cumsum(1))  # the first free place, the second, …
        place = torch.where(lives, place, self.places)
        for memory, new in zip(self.memory, (k, v), strict=True):
            memory.scatter_(1, place[..., None].expand_as(new), new)
        self.odd.scatter_(1, place, odd)
        self.until.scatter_(2, place[:, None].expand_as(last), last)

    def take(self, other: Bank) -> None:
        """Copy what the rows that both have hold in the other: if there are too few places for all, what is needed
        longest, in the first ones."""
        here = {row: n for n, row in enumerate(self.rows)}
        both = [(n, here[row]) for n, row in enumerate(other.rows) if row in here]
        if not both:
            return
        theirs, ours = torch.tensor(both, device="cpu").T.to(self.until.device, non_blocking=True)
        places = min(self.places, other.used)
        if self.places < other.used:
            at = other.last[theirs].amax(1).argsort(dim=1, descending=True, stable=True)[:, :places]
        else:  # nothing moves
            at = torch.arange(places, device=self.until.device).expand(len(both), -1)
            self.used = max(self.used, other.used)
        for x, y in zip(self.memory, other.memory, strict=True):
            x[ours, :places] = y[theirs[:, None], at]
        self.odd[ours, :places] = other.odd[theirs[:, None], at]
        self.until[ours, :, :places] = other.until[theirs].gather(2, at[:, None].expand(-1, self.until.shape[1], -1))

    def select(self, entries: Sequence[int], heads: int) -> Bank:
        """A copy whose entry n is this one's entry entries[n], of so many KV heads."""
        of: dict[int, list[tuple[int, int]]] = {}
        for at, row in enumerate(self.rows):
            of.setdefault(row // heads, []).append((at, row % heads))
        chosen = [(at, n * heads + head) for n, entry in enumerate(entries) for at, head in of.get(entry, ())]
        at = torch.tensor([at for at, _ in chosen], dtype=torch.int64, device="cpu").to(
            self.until.device, non_blocking=True
        )
        k, v, until, odd = (x.index_select(0, at) for x in (*self.memory, self.until, self.odd))
        bank = Bank.empty([row for _, row in chosen], len(entries) * heads, (k, v), until.shape[1])
        bank.until, bank.odd, bank.used, bank.live = until, odd, self.used, self.live
        return bank


def alike(wanted: dict[int, int]) -> list[tuple[list[int], int]]:
    """Rows that want about equally many places, together, each group with the places that its rows get.

    These are enough for some more tokens, and at most 5/4 of what any of its rows wants, and a block: {row: wanted}.

    >>> alike({0: 100, 1: 102, 2: 900})  # blocks of 16
    [([0, 1], 140), ([2], 1140)]
    """
    groups: list[list[int]] = []
    for row in sorted(wanted, key=lambda row: (wanted[row], row)):
        if groups and wanted[row] <= wanted[groups[-1][0]] * 11 // 10 + BLOCK // 2:
            groups[-1].append(row)
        else:
            groups.append([row])
    return [(sorted(group), wanted[group[0]] * 5 // 4 + BLOCK - 1) for group in groups]
