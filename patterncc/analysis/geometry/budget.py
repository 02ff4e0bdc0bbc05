"""How much work a proof may cost, and the exception that is raised when that does not suffice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class Undecided(Exception):
    """A search gave up: nothing below `decided` (in the units of the search) is a solution; `known` is one, though
    perhaps not the smallest (None: none was found)."""

    def __init__(self, decided: int, known: Any = None) -> None:
        super().__init__(decided, known)
        self.decided = decided
        self.known = known


@dataclass(frozen=True)
class Budget:
    """Limits of one search. They bound time and memory, never the truth of an answer.

    sieve: integers marked off in one Boolean array (bytes of memory)
    scan: integers looked at for a smallest solution, times the moduli that rule them out
    nodes: branches of one covering search
    meetings: times that a term is held against a box, in one search of the plane
    columns: columns tried one by one, where bounds on rows and query residues meet
    rows: block rows of random parts that are drawn and looked at
    side: blocks along a side of the box in which layers are composed
    bits: bits shifted when layers are composed
    lengths: layers times the cube of the length in blocks up to which lengths are composed one by one
    """

    sieve: int = 1 << 18
    scan: int = 1 << 28
    nodes: int = 20_000
    meetings: int = 1 << 20
    columns: int = 10_000
    rows: int = 512
    side: int = 6_000
    bits: int = 1 << 35
    lengths: int = 1 << 29


DEFAULT = Budget()
