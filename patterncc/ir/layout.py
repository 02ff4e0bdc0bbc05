"""Which blocks a head keeps, as rules. The words of the compiler, on one screen.

    block    `block` consecutive tokens; token t lies in block t // block
    row      a query block, i          column   a key block, j          d = i - j
    layout   the rules of one head in one layer: the union of its terms and parts
    class    heads, over all layers, whose layouts are equal (patterncc.ir.classes)

    layout  = term ("|" term)*  |  "nothing"
    term    = "all" | cond ("&" cond)*                                    # a conjunction, on blocks
            | "chunk" blocks                                             # i // blocks == j // blocks
            | "window" before "," after "tokens"                          # -after < t - u < before
            | "band" from ":" [to] "tokens"                               # from <= t - u < to
            | "sink" count "tokens"                                       # u < count
            | "random" blocks "seed" seed | "mask" rows "x" columns hex
    cond    = range of d, j or i     16<=d<64,  d<16,  16<=d,  j<1,  4<=i<5
            | residue                j%16==3,  j%16 in 3:5,  (i-j)%4==1

Whether a head may look ahead (causal or not) is the pattern's business, not the layout's.

>>> layout = Layout.parse("d<16 | j%16==3 | sink 4 tokens")
>>> layout.terms[1]
Term(every=16, offset=3)
>>> print(layout)
d<16 | j%16==3 | sink 4 tokens
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields

KEY, QUERY = "j", "i-j"  # what a residue is counted from: the key block, or the distance


@dataclass(frozen=True, repr=False)
class Term:
    """Row i keeps column j when every bound holds (None: unbounded) and (x - offset) mod every < width,
    where x is j, or i - j when `anchor` is QUERY."""

    d_from: int | None = None
    d_to: int | None = None
    j_from: int | None = None
    j_to: int | None = None
    i_from: int | None = None
    i_to: int | None = None
    every: int = 1
    offset: int = 0
    width: int = 1
    anchor: str = KEY

    def keeps(self, i: int, j: int) -> bool:
        """Whether row i keeps column j.

        >>> Term(d_to=2).keeps(5, 4), Term(d_to=2).keeps(5, 3)
        (True, False)
        """
        ranges = ((i - j, self.d_from, self.d_to), (j, self.j_from, self.j_to), (i, self.i_from, self.i_to))
        inside = all((low is None or low <= x) and (high is None or x < high) for x, low, high in ranges)
        return inside and ((j if self.anchor == KEY else i - j) - self.offset) % self.every < self.width

    def __str__(self) -> str:
        ranges = (("d", self.d_from, self.d_to), ("j", self.j_from, self.j_to), ("i", self.i_from, self.i_to))
        conditions = [_range_text(*r) for r in ranges if r[1:] != (None, None)]
        if self.every > 1:
            x = self.anchor if self.anchor == KEY else f"({self.anchor})"
            span = f"=={self.offset}" if self.width == 1 else f" in {self.offset}:{self.offset + self.width}"
            conditions.append(f"{x}%{self.every}{span}")
        return " & ".join(conditions) or "all"

    def __repr__(self) -> str:
        given = (f for f in fields(self) if getattr(self, f.name) != f.default)
        return f"Term({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in given)})"

    @staticmethod
    def parse(text: str) -> Term:
        """Read back what `str` printed."""
        values: dict[str, int | str] = {}
        for condition in [] if text == "all" else text.split(" & "):
            if found := re.fullmatch(r"(?:(-?\d+)<=)?([dji])(?:<(-?\d+))?", condition):
                low, name, high = found.groups()
                values |= {f"{name}_from": int(low)} if low else {}
                values |= {f"{name}_to": int(high)} if high else {}
            elif found := re.fullmatch(r"(j|\(i-j\))%(\d+)(?:==(\d+)| in (\d+):(\d+))", condition):
                x, every, only, first, last = found.groups()
                offset = int(only or first)
                values |= {"anchor": x.strip("()"), "every": int(every), "offset": offset}
                values |= {"width": int(last) - offset} if last else {}
            else:
                raise ValueError(f"not a condition: {condition!r}")
        return Term(**values)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Random:
    """`blocks` columns a row, drawn by the rule in `patterncc.ir.draw`."""

    blocks: int
    seed: int


@dataclass(frozen=True)
class Mask:
    """An explicit block mask, kept[i][j]; past its end nothing is kept. `bits` are its rows one after the other,
    eight to a byte, the first in the highest bit; only the last byte is padded."""

    rows: int
    columns: int
    bits: bytes = field(repr=False)


@dataclass(frozen=True)
class Layout:
    """The rules of one head: a column is kept when any part keeps it."""

    terms: tuple[Term, ...] = ()
    window: tuple[int, int] | None = None  # (before, after) in tokens: -after < t - u < before
    sink: int = 0  # tokens: u < sink
    random: Random | None = None
    mask: Mask | None = None
    chunk: int = 0  # blocks: i // chunk == j // chunk; 0: none
    bands: tuple[tuple[int, int | None], ...] = ()  # tokens, of a causal layout: from <= t - u < to

    def __str__(self) -> str:
        parts = [str(term) for term in self.terms]
        parts += [f"chunk {self.chunk}"] if self.chunk else []
        parts += [f"window {self.window[0]},{self.window[1]} tokens"] if self.window else []
        parts += [f"band {low}:{'' if high is None else high} tokens" for low, high in self.bands]
        parts += [f"sink {self.sink} tokens"] if self.sink else []
        parts += [f"random {self.random.blocks} seed {self.random.seed}"] if self.random else []
        parts += [f"mask {self.mask.rows}x{self.mask.columns} {self.mask.bits.hex()}"] if self.mask else []
        return " | ".join(parts) or "nothing"

    @staticmethod
    def parse(text: str) -> Layout:
        """Read back what `str` printed."""
        terms: list[Term] = []
        parts: dict[str, object] = {}
        bands: list[tuple[int, int | None]] = []
        for part in [] if text == "nothing" else text.split(" | "):
            if found := re.fullmatch(r"chunk (\d+)", part):
                parts["chunk"] = int(found[1])
            elif found := re.fullmatch(r"window (\d+),(\d+) tokens", part):
                parts["window"] = (int(found[1]), int(found[2]))
            elif found := re.fullmatch(r"band (\d+):(\d*) tokens", part):
                bands.append((int(found[1]), int(found[2]) if found[2] else None))
            elif found := re.fullmatch(r"sink (\d+) tokens", part):
                parts["sink"] = int(found[1])
            elif found := re.fullmatch(r"random (\d+) seed (-?\d+)", part):
                parts["random"] = Random(int(found[1]), int(found[2]))
            elif found := re.fullmatch(r"mask (\d+)x(\d+) ([0-9a-f]*)", part):
                parts["mask"] = Mask(int(found[1]), int(found[2]), bytes.fromhex(found[3]))
            else:
                terms.append(Term.parse(part))
        return Layout(tuple(terms), bands=tuple(bands), **parts)  # type: ignore[arg-type]


def _range_text(name: str, low: int | None, high: int | None) -> str:
    return (f"{low}<=" if low is not None else "") + name + (f"<{high}" if high is not None else "")
