"""When the pages of a paged KV cache die, for layers that share block tables: plain arithmetic, without vLLM.

A page is dead from a length on: no query at that position or later, of any head of any of the layers, may attend any of
its tokens. Lengths and positions count tokens; a page is a "block" to vLLM.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from patterncc.runtime.parts import part_of


class Pages:
    """The pages of a sequence of any length, under the rules of some layers of a compiled package."""

    def __init__(self, package: ModuleType, layers: Sequence[int], page_size: int) -> None:
        self.package, self.layers, self.page_size = package, tuple(layers), page_size
        self._from = np.empty(0, np.int64)  # [pages] the length from which on each is dead
        self._sorted, self._order = self._from, self._from
        self._held: dict[
            int, tuple[int, NDArray[np.int64], NDArray[np.int64]]
        ] = {}  # by tokens ahead: `_curve`, its end

    def dead_from(self, pages: int) -> NDArray[np.int64]:
        """The length from which on each of the first pages is dead: int64 [pages]."""
        if pages > len(self._from):
            count = max(64, 1 << (pages - 1).bit_length())
            of_layers = [
                part_of(self.package, layer).rules.pages.dead_from(count, self.page_size, layer=layer).numpy()
                for layer in self.layers
            ]
            self._from = np.maximum.reduce(of_layers)
            self._order = np.argsort(self._from, kind="stable")
            self._sorted = self._from[self._order]
        return self._from[:pages]

    def died(self, before: int, length: int) -> list[int]:
        """The pages that were not dead at `before` tokens and are at `length`."""
        self.dead_from(-(-length // self.page_size))
        low, high = np.searchsorted(self._sorted, (before, length), side="right")
        return self._order[low:high].tolist()

    def most_held(self, length: int, ahead: int) -> int:
        """The most pages that a request of `length` tokens holds at once, when up to `ahead` tokens have their pages
        before they are computed, and dead pages are given back after each step."""
        end, at, held = self._held.get(ahead, (0, self._from, self._from))
        if length >= end:
            end = max(1024, 1 << length.bit_length())
            at, held = self._curve(end, ahead)
            self._held[ahead] = end, at, held
        early = 0  # as long as a whole step lies before the end
        if length >= ahead:
            early = int(held[np.searchsorted(at, length - ahead, side="right") - 1])
        last = max(length - ahead, 0)
        return max(early, -(-length // self.page_size) - self._dead(last))

    def _dead(self, length: int) -> int:
        """How many pages are dead at so many tokens."""
        self.dead_from(-(-length // self.page_size))
        return int(np.searchsorted(self._sorted, length, side="right"))

    def _curve(self, end: int, ahead: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The most held when at most 0, 1, … end - 1 tokens are computed and `ahead` more have their pages: the numbers
        of computed tokens at which it grows, and what it is from each of them on."""
        self.dead_from(-(-end // self.page_size))
        computed = np.arange(end)
        held = -(-(computed + ahead) // self.page_size) - np.searchsorted(self._sorted, computed, side="right")
        most = np.maximum.accumulate(held)
        at = np.flatnonzero(np.diff(most, prepend=-1))
        return at, most[at]

    def longest_hit(self, cached: Iterable[bool], pages: int, step: int = 1) -> int:
        """How many of the first `pages` a prefix cache serves, a multiple of `step`: the most so that each page of them
        is cached, or dead at that length. `cached` is asked page by page, and no further than the answer may need."""
        dead_from = self.dead_from(pages)
        served, needed = 0, 0  # needed: the length from which on all missing pages so far are dead
        for page, is_cached in zip(range(pages), cached, strict=False):
            if not is_cached:
                needed = max(needed, int(dead_from[page]))
                if needed > pages * self.page_size:
                    break
            if needed <= (page + 1) * self.page_size and (page + 1) % step == 0:
                served = page + 1
        return served

    def alive(self, pages: int) -> list[bool]:
        """Which of the first pages are still read when exactly these are computed."""
        return (self.dead_from(pages) > pages * self.page_size).tolist()


@lru_cache(maxsize=1024)
def pages_of(source: str, layers: tuple[int, ...], page_size: int) -> Pages:
    """The pages of a pattern, by the text or the name that says it."""
    return Pages(package_of(source), layers, page_size)


@lru_cache(maxsize=16)
def package_of(source: str) -> ModuleType:
    """The package of a pattern, compiled or taken from the cache, once a process."""
    from patterncc.pipeline import load

    return load(source)


def kinds_of_layers(package: ModuleType) -> list[int]:
    """For each layer, the first one whose pages die as its own do: of one shape, its heads of the same rules."""
    parts = [part_of(package, layer) for layer in range(package.PATTERN["layers"])]
    rules = [(part.__name__, frozenset(part.pattern.CLASS_OF[layer])) for layer, part in enumerate(parts)]
    return [rules.index(own) for own in rules]
