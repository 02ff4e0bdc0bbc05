"""What the index maps of the forward and backward kernels have in common: the integers of the classes, the zones of
slots, and the conditions of parts given in tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from textwrap import wrap
from typing import TypeVar

from patterncc.codegen.statements import assigned, less
from patterncc.codegen.zones import FAR, NEVER, NO_CHUNK, Edge, Piece, Zones
from patterncc.ir.layout import Layout

T = TypeVar("T")
NO_PIECE, NO_EDGE = Piece(FAR, FAR), Edge(FAR, FAR)


@dataclass
class Integers:
    """The integers of every class. `expression`: a literal where all agree, else a name that equal columns share."""

    columns: dict[tuple[str, tuple[int, ...]], str] = field(default_factory=dict)  # (kind, values) -> name

    def expression(self, kind: str, values: Iterable[int]) -> str:
        column = tuple(values)
        number = sum(1 for known, _ in self.columns if known == kind)
        name = f"{kind}_{number}" if number else kind
        return str(column[0]) if len(set(column)) == 1 else self.columns.setdefault((kind, column), name)

    @property
    def names(self) -> list[str]:
        return list(self.columns.values())

    def loads(self, start: int = 0) -> list[str]:
        return [f"{name} = tl.load(pattern{f' + {n}' if n else ''})" for n, name in enumerate(self.names, start)]

    def table(self, classes: int) -> list[str]:
        """The lines of CLASS_INTS: a row of integers for each class, and a comment that names its columns."""
        rows = tuple(zip(*(values for _, values in self.columns), strict=True)) or ((),) * classes
        names = wrap(f"columns of CLASS_INTS: {', '.join(self.names)}", 118) if self.columns else []
        return [*(f"# {line}" for line in names), *assigned("CLASS_INTS", rows)]


@dataclass
class ZoneWriter:
    """The statements that find the zones, one by one: what slot 0 would hold, and the number of slots so far."""

    lines: list[str] = field(default_factory=list)
    every: list[str] = field(default_factory=list)  # [zone] the step from slot to slot

    def far(self, low: str, high: str, every: str = "1", residue: str = "0") -> None:
        """A zone of what is low <= x < high and congruent to residue modulo every."""
        if every == "1":
            self.lines.append(f"low = {low}")
            self._zone(f"tl.maximum({high} - low, 0)", every)
        else:
            self.lines.append(f"low, count = progression({low}, {high}, {every}, {residue})")
            self._zone("count", every)

    def edge(self, low: str, high: str) -> None:
        """A zone of low <= x < high; `high` is then where the next one may begin."""
        self.lines += [f"low = {low}", f"high = tl.maximum(low, {high})"]
        self._zone("high - low", "1")

    def _zone(self, count: str, every: str) -> None:
        n, before = len(self.every), f"stop_{len(self.every) - 1}"
        step = "" if every == "1" else f" * {every}"
        self.lines.append(f"first_{n} = low - {before}{step}" if n else "first_0 = low")
        self.lines.append(f"stop_{n} = {before} + {count}" if n else f"stop_0 = {count}")
        self.every.append(every)

    @property
    def places(self) -> list[str]:
        """The numbers that `column` needs."""
        numbers = [name for n in range(len(self.every)) for name in (f"first_{n}", f"stop_{n}")][:-1]
        return numbers + [every for every in dict.fromkeys(self.every) if not every.isdigit()]

    def choices(self, far: int, x: str = "j") -> list[str]:
        """The statements that turn a slot into its column. Far slots need only the first of them."""
        terms = [f"first_{n} + slot" + ("" if every == "1" else f" * {every}") for n, every in enumerate(self.every)]
        choices = [f"{x} = tl.where(slot < stop_{n}, {x}, {term})" for n, term in enumerate(terms[1:])]
        edge = ["if not IS_FAR:", *("    " + line for line in choices[far - 1 :])]
        return [f"{x} = {terms[0]}", *choices[: far - 1], *edge, f"return {x}"]


def token_rule(
    layouts: Sequence[Layout], ints: Integers, *, block: int, causal: bool, first: str = "t_first", last: str = "t_last"
) -> list[str]:
    """The conditions of the parts that are given in tokens and do not end with a block."""
    rule = []
    if any(layout.window for layout in layouts):
        before = ints.expression("before", [layout.window[0] if layout.window else NEVER for layout in layouts])
        rule.append(f"u > {less(first, before)}")
        if not causal:
            after = ints.expression("after", [layout.window[1] if layout.window else 0 for layout in layouts])
            rule[0] = f"({rule[0]}) & (u < {last} + {after})"
    for bands in padded([layout.bands for layout in layouts], (FAR, None)) if any(x.bands for x in layouts) else ():
        low = ints.expression("band_from", [start for start, _ in bands])
        high = ints.expression("band_to", [FAR if stop is None else stop for _, stop in bands])
        rule.append(f"(u <= {less(last, low)}) & (u > {less(first, high)})")
    if any(layout.sink % block for layout in layouts):
        rule.append(f"u < {ints.expression('sink_tokens', [layout.sink for layout in layouts])}")
    return rule


def chunk_of(classes: Sequence[Zones], ints: Integers) -> tuple[str, str]:
    """Two expressions: the rows of a chunk, "" when no class has one; and a shift that moves the chunk's end out of
    sight for classes without a chunk, "" when all have one."""
    sizes = [z.chunk for z in classes]
    if set(sizes) == {NO_CHUNK}:
        return "", ""
    none = ints.expression("chunkless", [FAR * (size == NO_CHUNK) for size in sizes])
    return ints.expression("chunk", sizes), "" if none == "0" else none


def used_in(rule: list[str], ints: Integers, writer: ZoneWriter) -> list[str]:
    """The names that the statements of the rule read: the ones that must be passed to them."""
    words = {word for line in rule for word in re.findall(r"\w+", line)}
    known = ints.names + [line.split(" = ")[0] for line in writer.lines if line.startswith("row_residue")]
    return [name for name in known if name in words]


def padded(rows: Sequence[tuple[T, ...]], filler: T, *, at_end: bool = True) -> list[tuple[T, ...]]:
    """[class][n] made equally long and turned to [n][class].

    >>> padded([(1, 2), (3,)], 0), padded([(1, 2), (3,)], 0, at_end=False)
    ([(1, 3), (2, 0)], [(1, 0), (2, 3)])
    """
    longest = max(map(len, rows))
    fill = [(filler,) * (longest - len(row)) for row in rows]
    full = (row + more if at_end else more + row for row, more in zip(rows, fill, strict=True))
    return list(zip(*full, strict=True))
