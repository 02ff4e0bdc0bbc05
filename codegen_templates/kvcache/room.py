"""The memory of a KV cache and its division among rows: banks that grow, and shrink where others need places."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import Tensor

from ..pattern import BLOCK, HEAD_DIM, V_HEAD_DIM
from ..rules.lifetime import live, most_live
from .bank import Bank, alike

Memory = tuple[Tensor, Tensor]  # K and V
Plan = list[tuple[Sequence[int], int]]  # rows that get equally many places, and how many


class Room:
    """The banks of all rows. For every entry of the batch they have at most 5/4 of the places that it ever needed at a
    time, over its KV heads, and a block a KV head.

    What is needed follows from the lengths alone, by arithmetic on the host.
    """

    def __init__(
        self, like: Tensor, batch: int, needs: Sequence[tuple[int, ...]], classes: int, max_length: int | None
    ) -> None:
        """like: no key [0, dim]. needs: of each KV head the classes of its query heads; `classes` are told apart in the
        banks. max_length: places for so many tokens are taken at once."""
        self._like, self._needs, self._classes = like, needs, classes
        self.batch, self.heads = batch, len(needs)
        self.banks: list[Bank] = []
        self._since, self._left = 0, -1  # tokens of an entry since the rows were looked at, and how many then fitted
        self._peaks = [0] * batch  # of each entry's live keys, whenever it was looked at
        self._most: list[int] | None = None  # places that each KV head has for good
        self._pool: Memory | None = None  # all places [places, width]; None: every bank has its own
        self._share = 0  # of an entry, in the pool
        nothing = dict.fromkeys(range(batch * self.heads), 0)
        if max_length is not None:
            # Each KV head gets what it will ever need; or, where these are not needed at the same time and are too
            # many together, what it needs at the time out of a pool.
            self._most, together = most_live(needs, max_length)
            if not self._bounded(self._plan(nothing), [together] * batch):
                self._most, self._share = None, together * 5 // 4 + self.heads * BLOCK
                self._pool = self._zeros(batch * self._share)
        self._settle([], self._plan(nothing))

    @property
    def places(self) -> int:
        """The places for which memory is allocated."""
        if self._pool is not None:
            return len(self._pool[0])
        return sum((bank.places + 1) * len(bank.rows) for bank in self.banks)

    def wanted(self, ends: Sequence[int]) -> dict[int, int]:
        """The live keys of every row, when the entries have these lengths."""
        known = {(needs, end): live(needs, end) for needs in set(self._needs) for end in set(ends)}
        pairs = ((needs, end) for end in ends for needs in self._needs)
        return {row: known[pair] for row, pair in enumerate(pairs)}

    def make(self, ends: Sequence[int], tokens: int) -> None:
        """Places for what is live at these lengths, which are so many tokens more than last time, or fewer.

        New keys take the first free places. So no more were ever used than keys were live at a time: those of the last
        look and all tokens since, at most. A look comes once a block, or where places may be too few.
        """
        self._since += tokens
        if self._since <= self._left:
            for bank in self.banks:
                bank.used = max(bank.used, bank.live + self._since)
            return
        wanted = self.wanted(ends)
        if self._most is None:
            self._fit(wanted)
        self._look(wanted)

    def fork(self, entries: Sequence[int], ends: Sequence[int]) -> Room:
        """A copy for these entries, -1 for a new one; ends: their lengths."""
        fork = copy.copy(self)
        fork.batch = len(entries)
        fork._peaks = [self._peaks[n] if n >= 0 else 0 for n in entries]
        fork.banks = [bank for bank in (bank.select(entries, self.heads) for bank in self.banks) if bank.rows]
        if self._pool is not None:
            fork._pool = self._zeros(fork.batch * self._share)
        if -1 in entries or self._pool is not None:
            wanted = fork.wanted(ends)
            fork._settle([], fork._plan(wanted))
            fork._look(wanted)
        return fork

    def _zeros(self, *shape: int) -> Memory:
        """K and V of new places."""
        k, v = (self._like.new_zeros(*shape, width) for width in (HEAD_DIM, V_HEAD_DIM))
        return k, v

    def _look(self, wanted: dict[int, int]) -> None:
        for bank in self.banks:
            bank.live = max(wanted[row] for row in bank.rows)
            bank.used = max(bank.used, bank.live)
        left = min((bank.places - bank.live for bank in self.banks), default=0)
        self._since, self._left = 0, min(left, BLOCK)

    def _fit(self, wanted: dict[int, int]) -> None:
        """Make banks that are too small anew; all of them, if else an entry had too much or fewer banks will do."""
        now = (sum(wanted[entry * self.heads + head] for head in range(self.heads)) for entry in range(self.batch))
        self._peaks = [max(pair) for pair in zip(self._peaks, now, strict=True)]
        small = [bank for bank in self.banks if any(wanted[row] > bank.places for row in bank.rows)]
        stay = [bank for bank in self.banks if bank not in small]
        plan, anew = (self._plan({row: wanted[row] for x in banks for row in x.rows}) for banks in (small, self.banks))
        kept: Plan = [(bank.rows, bank.places) for bank in stay]
        too_much = self._pool is not None or not self._bounded([*kept, *plan], self._peaks)
        if len(anew) < len(kept) + len(plan) or (plan and too_much):
            stay, plan = [], anew
        if plan:
            self._settle(stay, plan)

    def _plan(self, wanted: dict[int, int]) -> Plan:
        if self._most is None:
            return [*alike(wanted)]
        most = self._most
        groups = alike({row: most[row % self.heads] for row in wanted})
        return [(rows, max(most[row % self.heads] for row in rows)) for rows, _ in groups]

    def _bounded(self, plan: Iterable[tuple[Sequence[int], int]], peaks: Sequence[int]) -> bool:
        """Whether no entry would have too much, each having needed so many places at a time."""
        have = [0] * self.batch
        for rows, places in plan:
            for row in rows:
                have[row // self.heads] += places + 1
        return all(4 * x <= 5 * peak + 4 * self.heads * BLOCK for x, peak in zip(have, peaks, strict=True))

    def _settle(self, stay: list[Bank], plan: Plan) -> None:
        """Replace all banks except `stay` by those of a plan; their contents move over."""
        old, self.banks, taken = self.banks, [*stay], 0
        if self._pool is not None:  # the new banks lie where the old ones do
            old = [replace(bank, memory=(bank.memory[0].clone(), bank.memory[1].clone())) for bank in old]
            for memory in self._pool:
                memory.zero_()  # a weight of 0 times what another left there must be 0
        for rows, places in plan:
            shape = len(rows), places + 1
            if self._pool is None:
                k, v = self._zeros(*shape)
            else:
                size = len(rows) * (places + 1)
                k, v = (memory[taken : taken + size].unflatten(0, shape) for memory in self._pool)
                taken += size
            bank = Bank.empty(rows, self.batch * self.heads, (k, v), self._classes)
            for other in old:
                bank.take(other)
            self.banks.append(bank)
