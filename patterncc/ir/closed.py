"""The index map as arithmetic: a few integers that say, for every length, which blocks a head keeps whole.

    closed = part (" | " part)*  |  "nothing"
    part   = j<sink | "chunk" blocks | band            band = [range of d] ["&" residues] | "all"
    residues = j%16==3 | j%15 in {0,3,5} | (i-j)%4==1

Bands are disjoint in d and sorted by it: the pair (i, j) is kept iff j < sink, or i and j lie in one chunk, or the band
of d = i - j keeps it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from patterncc.ir.layout import KEY

MOST_RESIDUES = 64  # a longer list is no longer arithmetic: a table says it better


@dataclass(frozen=True)
class Band:
    """The distances d_from <= d < d_to (None: unbounded) where x mod every is one of `residues`; x is j, or
    i - j when `anchor` is QUERY. Contiguous bands have every 1 and residues (0,)."""

    d_from: int | None
    d_to: int | None
    every: int = 1
    residues: tuple[int, ...] = (0,)
    anchor: str = KEY

    def holds(self, d: int) -> bool:
        return (self.d_from is None or self.d_from <= d) and (self.d_to is None or d < self.d_to)

    def __str__(self) -> str:
        conditions = []
        if (self.d_from, self.d_to) != (None, None):
            low = "" if self.d_from is None else f"{self.d_from}<="
            high = "" if self.d_to is None else f"<{self.d_to}"
            conditions.append(f"{low}d{high}")
        if self.every > 1:
            x = self.anchor if self.anchor == KEY else f"({self.anchor})"
            many = " in {" + ",".join(map(str, self.residues)) + "}"
            conditions.append(f"{x}%{self.every}" + (f"=={self.residues[0]}" if len(self.residues) == 1 else many))
        return " & ".join(conditions) or "all"

    @staticmethod
    def parse(text: str) -> Band:
        """Read back what `str` printed."""
        values: dict[str, int | str | tuple[int, ...] | None] = {"d_from": None, "d_to": None}
        for condition in [] if text == "all" else text.split(" & "):
            if found := re.fullmatch(r"(?:(-?\d+)<=)?d(?:<(-?\d+))?", condition):
                low, high = found.groups()
                values |= {"d_from": int(low) if low else None, "d_to": int(high) if high else None}
            elif found := re.fullmatch(r"(j|\(i-j\))%(\d+)(?:==(\d+)| in \{([\d,]+)\})", condition):
                x, every, only, many = found.groups()
                residues = tuple(int(residue) for residue in (only or many).split(","))
                values |= {"anchor": x.strip("()"), "every": int(every), "residues": residues}
            else:
                raise ValueError(f"not a condition: {condition!r}")
        return Band(**values)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ClosedForm:
    """
    >>> form = ClosedForm(1, (Band(0, 16), Band(16, None, 15, (0, 3, 5))))
    >>> print(form)
    j<1 | 0<=d<16 | 16<=d & j%15 in {0,3,5}
    >>> ClosedForm.parse(str(form)) == form
    True
    """

    sink: int
    bands: tuple[Band, ...]
    chunk: int = 0  # blocks; 0: none. Beside it all bands are contiguous

    def keeps(self, i: int, j: int) -> bool:
        """Whether row i keeps column j whole, before the causal cut."""
        if j < self.sink or (self.chunk and i // self.chunk == j // self.chunk):
            return True
        for band in self.bands:
            if band.holds(i - j):
                return (j if band.anchor == KEY else i - j) % band.every in band.residues
        return False

    def __str__(self) -> str:
        parts = [f"j<{self.sink}"] if self.sink else []
        parts += [f"chunk {self.chunk}"] if self.chunk else []
        return " | ".join(parts + [str(band) for band in self.bands]) or "nothing"

    @staticmethod
    def parse(text: str) -> ClosedForm:
        """Read back what `str` printed."""
        parts = [] if text == "nothing" else text.split(" | ")
        sink = int(parts.pop(0).removeprefix("j<")) if parts and re.fullmatch(r"j<\d+", parts[0]) else 0
        chunk = int(parts.pop(0).removeprefix("chunk ")) if parts and parts[0].startswith("chunk ") else 0
        return ClosedForm(sink, tuple(Band.parse(part) for part in parts), chunk)
