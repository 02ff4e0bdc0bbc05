"""The text of the forward kernel's index map: row and slot to column, as arithmetic for one pattern or as a table.

Numbers that all classes share are written as they are. The others stand in CLASS_INTS, a row of integers a class, and
the kernel loads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from patterncc.codegen import literal
from patterncc.codegen.zones import FAR, NEVER, Edge, Piece, zones
from patterncc.ir.layout import Layout
from patterncc.ir.plan import Plan

T = TypeVar("T")
NO_PIECE, NO_EDGE = Piece(FAR, FAR), Edge(FAR, FAR)
MOST_SHOWN, WIDTH = 4, 120


def index_map(plan: Plan) -> str:
    """The index map of `index_map.py`, between its markers.

    >>> from patterncc.ir.layout import Classes
    >>> from patterncc.passes.choose_plan import choose_plan
    >>> plan = choose_plan(Classes.parse('''demo: block 64, causal, head_dim 128, heads 2, kv_heads 1
    ... class 0: d<4 | j%8==1
    ... class 1: d<4 | j%8==5
    ... layers 0: 0 1'''))
    >>> print(index_map(plan).split('"'*3)[-1])
    <BLANKLINE>
        (residue,) = rule
        keep = (j <= i_last - 4) & ((j - residue) % 8 == 0)
        keep |= j > i_first - 4
        return keep
    """
    return table_map(plan) if plan.form == "table" else closed_map(plan)


def closed_map(plan: Plan) -> str:
    """The index map as arithmetic."""
    causal, block = plan.classes.causal, plan.classes.block
    forms = zip(plan.closed, plan.classes.layouts, strict=True)
    classes = [zones(form, layout, block=block, causal=causal) for form, layout in forms if form is not None]
    ints, zoning = Integers(), Zoning()
    spans = Spans(ints, zoning.lines, causal)

    zoning.lines.append("# far: columns below j_whole that every row keeps")
    sink, sink_edge = (ints.say(n, [getattr(z, n) for z in classes]) for n in ("sink", "sink_edge"))
    start = reach = "j_first"
    if sink != "0":
        zoning.far(start, f"tl.minimum(j_whole, {sink})")
        zoning.lines.append("reach = low + stop_0")
        reach = "reach"
    if sink_edge != "0":
        start = f"tl.maximum(j_first, {sink_edge})"
    for pieces in padded([z.pieces for z in classes], NO_PIECE) or [(NO_PIECE,) * len(classes)]:
        low, high, every, residue = spans.say(pieces)
        zoning.far(
            f"tl.maximum({start}, {less('i_last', high, 1)})" if high else start,
            f"tl.minimum(j_whole, {less('i_first', low, 1)})" if low not in ("", "1"[:causal]) else "j_whole",
            every,
            residue,
        )
    far = len(zoning.every)

    zoning.lines.append("# edge: around the distances at which the rule changes, then whatever is not below j_whole")
    if sink_edge != sink:
        zoning.edge(reach, f"tl.minimum(j_whole, {sink_edge})")
        reach = "high"
    for edges in padded([z.edges for z in classes], NO_EDGE, at_end=False):
        low = ints.say("edge_low", [edge.low for edge in edges])
        high = ints.say("edge_high", [edge.high for edge in edges])
        zoning.edge(
            f"tl.maximum({reach}, tl.minimum(j_whole, {less('i_first', high, 1)}))",
            f"tl.minimum(j_whole, {less('i_last', low, 1)})",
        )
        reach = "high"
    zoning.edge(f"tl.maximum({reach}, j_whole)", "j_stop")

    rule = [f"j < {sink}"] if sink != "0" else []
    rule += [spans.rule(pieces) for pieces in padded([z.rule for z in classes], NO_PIECE)]
    rule += token_rule(plan.classes.layouts, ints, block=block, causal=causal)
    return write_map(plan, ints, zoning, far, rule)


@dataclass
class Integers:
    """The integers of every class. `say` gives a literal when all agree, else a name, which equal columns share."""

    columns: dict[tuple[str, tuple[int, ...]], str] = field(default_factory=dict)  # (kind, values) -> name

    def say(self, kind: str, values: Iterable[int]) -> str:
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
        """The lines of CLASS_INTS."""
        return assigned(
            "CLASS_INTS", tuple(zip(*(values for _, values in self.columns), strict=True)) or ((),) * classes
        )


@dataclass
class Zoning:
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
        """The statements that say what a slot holds: one after the other, of which far slots need the first ones."""
        terms = [f"first_{n} + slot" + ("" if every == "1" else f" * {every}") for n, every in enumerate(self.every)]
        choices = [f"{x} = tl.where(slot < stop_{n}, {x}, {term})" for n, term in enumerate(terms[1:])]
        edge = ["if not IS_FAR:", *("    " + line for line in choices[far - 1 :])]
        return [f"{x} = {terms[0]}", *choices[: far - 1], *edge, f"return {x}"]


@dataclass
class Spans:
    """How the kernel says the distances and residues of a piece that every class has; "" is no bound."""

    ints: Integers
    lines: list[str]  # where a residue that goes with the row is worked out
    causal: bool
    said: dict[tuple[tuple[int, int, int], ...], tuple[str, str]] = field(default_factory=dict)

    def say(self, pieces: Sequence[Piece]) -> tuple[str, str, str, str]:
        low = self.ints.say("nearest", [p.low for p in pieces])
        high = self.ints.say("farther", [p.high for p in pieces])
        unbounded = "0" if self.causal else str(-FAR)
        return "" if low == unbounded else low, "" if high == str(FAR) else high, *self._period(pieces)

    def _period(self, pieces: Sequence[Piece]) -> tuple[str, str]:
        key = tuple((p.every, p.residue, p.from_query) for p in pieces)
        if key not in self.said:
            n = len(self.said)
            every = self.ints.say("every", [p.every for p in pieces])
            residue = self.ints.say("residue", [p.residue for p in pieces])
            turn = self.ints.say("turn", [p.from_query for p in pieces])
            if turn != "0":
                row = ("i_first" if turn == "1" else f"i_first * {turn}") + f" + {residue}" * (residue != "0")
                self.lines.append(f"row_residue_{n} = (({row}) % {every} + {every}) % {every}")
                residue = f"row_residue_{n}"
            self.said[key] = every, residue
        return self.said[key]

    def rule(self, pieces: Sequence[Piece]) -> str:
        """The condition on d and j."""
        low, high, every, residue = self.say(pieces)
        conditions = [f"j <= {less('i_last', low)}"] * bool(low) + [f"j > {less('i_first', high)}"] * bool(high)
        if every != "1":
            conditions.append(f"j % {every} == 0" if residue == "0" else f"(j - {residue}) % {every} == 0")
        return " & ".join(f"({c})" for c in conditions) if len(conditions) > 1 else "".join(conditions) or "u >= 0"


def token_rule(
    layouts: Sequence[Layout], ints: Integers, *, block: int, causal: bool, first: str = "t_first", last: str = "t_last"
) -> list[str]:
    """The conditions of the parts that are given in tokens and do not end with a block."""
    rule = []
    if any(layout.window for layout in layouts):
        before = ints.say("before", [layout.window[0] if layout.window else NEVER for layout in layouts])
        rule.append(f"u > {less(first, before)}")
        if not causal:
            after = ints.say("after", [layout.window[1] if layout.window else 0 for layout in layouts])
            rule[0] = f"({rule[0]}) & (u < {last} + {after})"
    if any(layout.sink % block for layout in layouts):
        rule.append(f"u < {ints.say('sink_tokens', [layout.sink for layout in layouts])}")
    return rule


def assigned(name: str, value: object) -> list[str]:
    """The lines of a constant of the module."""
    column = len(name) + 3
    lines = f"{name} = {literal.write(value, column=column)}".split("\n")
    return ["# fmt: off", *lines, "# fmt: on"] if literal.is_filled(value, column=column) else lines


def padded(rows: Sequence[tuple[T, ...]], filler: T, *, at_end: bool = True) -> list[tuple[T, ...]]:
    """[class][n] made equally long and turned to [n][class].

    >>> padded([(1, 2), (3,)], 0), padded([(1, 2), (3,)], 0, at_end=False)
    ([(1, 3), (2, 0)], [(1, 0), (2, 3)])
    """
    longest = max(map(len, rows))
    fill = [(filler,) * (longest - len(row)) for row in rows]
    full = (row + more if at_end else more + row for row, more in zip(rows, fill, strict=True))
    return list(zip(*full, strict=True))


def less(x: str, distance: str, shift: int = 0, *, sign: int = -1) -> str:
    """x - distance + shift, or x + distance.

    >>> less("i", "0"), less("i", "5"), less("i", "5", 1), less("i", "-1"), less("i", "low", 1), less("j", "5", sign=1)
    ('i', 'i - 5', 'i - 4', 'i + 1', 'i - low + 1', 'j + 5')
    """
    if not distance.lstrip("-").isdigit():
        return f"{x} {'+' if sign > 0 else '-'} {distance}" + f" + {shift}" * bool(shift)
    shift += sign * int(distance)
    return x if not shift else f"{x} {'+' if shift > 0 else '-'} {abs(shift)}"


CLOSED = '''{comment}
{classes}


@triton.jit
def index_map(pattern, columns, i_first, i_last, j_first, j_whole, j_stop):
    """The slots of rows i_first..i_last: how many are far, how many there are, their zones, and what the rule needs."""
{zones}
    return stop_{far}, stop_{last}, places, rule


@triton.jit
def column(slot, places, IS_FAR: tl.constexpr):
    """The column in a slot."""
{column}


@triton.jit
def keeps(slot, i_first, i_last, j, t_first, t_last, u, rule):
    """Whether one of the query tokens t_first..t_last, of rows i_first..i_last, keeps key token u, of the column j in
    this slot: but for causality."""
{rule}

'''


def write_map(plan: Plan, ints: Integers, zoning: Zoning, far: int, rule: list[str]) -> str:
    """The text of the functions."""
    rule = any_of(rule)
    used = used_in(rule, ints, zoning)
    return CLOSED.format(
        comment=comment(plan),
        classes="\n".join(ints.table(len(plan.closed))),
        zones=indented([*ints.loads(), *zoning.lines, *packed("places", zoning.places), *packed("rule", used)]),
        far=far - 1,
        last=len(zoning.every) - 1,
        column=indented([*unpacked(zoning.places, "places"), *zoning.choices(far)]),
        rule=indented([*(unpacked(used, "rule") if used else []), *rule]),
    )


def any_of(terms: list[str]) -> list[str]:
    """The statements that return whether any of the terms holds."""
    if not terms:
        return ["return u < 0"]
    return ["keep = " + terms[0], *("keep |= " + term for term in terms[1:]), "return keep"]


def used_in(rule: list[str], ints: Integers, zoning: Zoning) -> list[str]:
    """What the statements of the rule need to be given."""
    words = {word for line in rule for word in re.findall(r"\w+", line)}
    known = ints.names + [line.split(" = ")[0] for line in zoning.lines if line.startswith("row_residue")]
    return [name for name in known if name in words]


def comment(plan: Plan) -> str:
    """The first classes' rules."""
    pairs = enumerate(zip(plan.closed, plan.classes.layouts, strict=True))
    rules = [f"# class {n}: {form or replace(layout, mask=None)}" for n, (form, layout) in pairs]
    more = [f"# and {len(rules) - MOST_SHOWN} classes more"] if len(rules) > MOST_SHOWN else []
    return "\n".join([rule[:WIDTH] for rule in rules[:MOST_SHOWN]] + more)


def packed(name: str, parts: list[str]) -> list[str]:
    """A tuple, on one line where it fits."""
    if len(_tuple(parts)) < 100:
        return [f"{name} = {_tuple(parts)}"]
    return [f"{name} = (", *(f"    {part}," for part in parts), ")"]


def unpacked(parts: list[str], name: str) -> list[str]:
    """The statement that takes it apart."""
    if len(_tuple(parts)) < 100:
        return [f"{', '.join(parts)} = {name}" if len(parts) > 1 else f"({parts[0]},) = {name}"]
    return ["(", *(f"    {part}," for part in parts), f") = {name}"]


def _tuple(parts: list[str]) -> str:
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"


def indented(lines: list[str]) -> str:
    return "\n".join("    " + line for line in lines)


TABLE = '''{comment}
{classes}


@triton.jit
def index_map(pattern, columns, i_first, i_last, j_first, j_whole, j_stop):
    """The slots of row i_first: those below `far` hold columns that the row keeps whole and that lie below j_whole."""
    pattern += {row}.to(tl.int64) * {record}{note}
    low, whole, stop = tl.load(pattern), tl.load(pattern + 1), tl.load(pattern + 2)
    if j_first > 0:
        low = search(columns, low, whole, j_first, False)
    far = search(columns, low, whole, j_whole, True) - low
    return far.to(tl.int32), (stop - low).to(tl.int32), (columns + low, stop - low), {rule_values}


@triton.jit
def column(slot, places, IS_FAR: tl.constexpr):
    """The column in a slot."""
    columns, count = places
    return tl.load(columns + slot, mask=slot < count, other=0)


@triton.jit
def keeps(slot, i_first, i_last, j, t_first, t_last, u, rule):
    """Whether one of the query tokens t_first..t_last, of rows i_first..i_last, keeps key token u, of the column j in
    this slot: but for causality."""
{rule}

'''


def table_map(plan: Plan) -> str:
    """The index map as arrays: a row's columns, those that it keeps whole first, then those that it keeps in part."""
    ints = Integers()
    rule = token_rule(plan.classes.layouts, ints, block=plan.classes.block, causal=plan.classes.causal)
    loads = [f"tl.load(pattern + {3 + n})" for n in range(len(ints.names))]
    lines = [*unpacked(["whole", *ints.names], "rule"), "keep = slot < whole", *("keep |= " + term for term in rule)]
    return TABLE.format(
        comment=comment(plan),
        classes="\n".join(ints.table(len(plan.closed))),
        row="tl.maximum(i_first, 0)" if plan.classes.causal else "i_first",
        note="  # rows before the first key keep nothing" if plan.classes.causal else "",
        record=3 + len(ints.names),
        rule_values=_tuple(["whole - low", *loads]),
        rule=indented([*lines, "return keep"]),
    )
