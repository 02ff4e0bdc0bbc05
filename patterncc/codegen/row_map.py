"""The text of the backward kernel's index map: column and slot to row, the inverse of the forward kernel's.

It lists the near rows, those that keep a column as one of a run of columns: bands without a period, bands counted from
the query, sinks, and parts given in tokens. A stride (a band with a period, counted from the key) has work items of its
own, since its columns are gathered into full tiles; the launcher makes them from the numbers in STRIDES.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from patterncc.codegen.bounds import BandBounds
from patterncc.codegen.statements import any_of, assigned, comment, indented, less, packed, unpacked, written
from patterncc.codegen.zone_writer import NO_EDGE, NO_PIECE, Integers, ZoneWriter, chunk_of, padded, token_rule, used_in
from patterncc.codegen.zones import FAR, Edge, Piece, Zones, zones_of
from patterncc.ir.plan import Plan


def row_map(plan: Plan) -> str:
    """The index map of `kernels/row_map.py`, between its markers."""
    return table_map(plan) if plan.form == "table" else closed_map(plan)


def closed_map(plan: Plan) -> str:
    """The index map as arithmetic."""
    causal, block, classes = plan.classes.causal, plan.classes.block, zones_of(plan)
    ints, writer = Integers(), ZoneWriter()
    band_bounds = BandBounds(ints, writer.lines, causal)

    sink, sink_edge = (ints.expression(n, [getattr(z, n) for z in classes]) for n in ("sink", "sink_edge"))
    chunk, chunkless = chunk_of(classes, ints)
    far_zones(writer, band_bounds, classes, sink, sink_edge, chunk)
    far = len(writer.every)
    edge_zones(writer, ints, classes, sink, sink_edge, chunk)

    strides = padded([tuple(filter(is_stride, z.rule)) for z in classes], Piece(FAR, FAR))
    texts = tuple(tuple(stride(*pair) for pair in zip(pieces, classes, strict=True)) for pieces in strides)
    rule = [f"j < {sink}"] if sink != "0" else []
    rule += [f"i < (j // {chunk} + 1) * {chunk}" + f" - {chunkless}" * bool(chunkless)] if chunk else []
    runs = padded([tuple(piece for piece in z.rule if not is_stride(piece)) for z in classes], NO_PIECE)
    rule += [band_bounds.rule(pieces) for pieces in runs]
    tokens = token_rule(plan.classes.layouts, ints, block=block, causal=causal, first="t", last="t")
    others = [band_bounds.rule(pieces) + f" & (j >= {sink})" * (sink != "0") for pieces in strides if tokens]
    lines = near_rule(rule, tokens, others) if others else any_of(rule + tokens)
    used = used_in(lines, ints, writer)
    body = [*writer.lines, *packed("places", writer.places), *packed("rule", used)]
    return CLOSED.format(
        comment=comment(plan),
        classes="\n".join(ints.table(len(classes))),
        strides="\n".join(assigned("STRIDES", texts)),
        zones=indented([*needed(ints.loads(), body), *body]),
        far=far - 1,
        last=len(writer.every) - 1,
        row=indented([*unpacked(writer.places, "places"), *writer.choices(far, "i")]),
        rule=indented([*(unpacked(used, "rule") if used else []), *lines]),
    )


def far_zones(
    writer: ZoneWriter, bounds: BandBounds, classes: Sequence[Zones], sink: str, sink_edge: str, chunk: str
) -> None:
    """Write the zones of rows that are whole, past all of the columns, and keep each of them."""
    writer.lines.append("# far: whole rows, past all of the columns, that keep each of them")
    start = "i_whole"
    if sink != "0":
        writer.far("i_whole", f"tl.where(j_last < {sink}, i_full, i_whole)")
    if sink_edge != "0":
        writer.lines.append(f"i_next = tl.where(j_first < {sink_edge}, tl.maximum(i_whole, i_full), i_whole)")
        start = "i_next"
    if chunk:
        writer.lines += [f"chunk_{column} = (j_{column} // {chunk} + 1) * {chunk}" for column in ("first", "last")]
        writer.far(start, "tl.minimum(i_full, chunk_first)")
        writer.lines.append(f"i_beyond = tl.maximum({start}, chunk_last)")
        start = "i_beyond"
    near = [tuple(piece for piece in z.pieces if not is_stride(piece)) for z in classes]
    for pieces in padded(near, NO_PIECE) or [(NO_PIECE,) * len(classes)]:
        low, high, every, residue = bounds.expressions(pieces)
        writer.far(
            f"tl.maximum({start}, {less('j_last', low, sign=1)})" if low not in ("", "1"[: bounds.causal]) else start,
            f"tl.minimum(i_full, {less('j_first', high, sign=1)})" if high else "i_full",
            every,
            residue,
        )


def edge_zones(
    writer: ZoneWriter, ints: Integers, classes: Sequence[Zones], sink: str, sink_edge: str, chunk: str
) -> None:
    """Write the zones of all other rows that may keep a column."""
    writer.lines.append(
        "# edge: rows before i_whole, around the distances at which the rule changes, and from i_full on"
    )
    writer.edge("i_first", "tl.minimum(i_whole, i_stop)")
    if sink_edge != "0":
        writer.edge("high", f"tl.where((j_first < {sink_edge}) & (j_last >= {sink}), i_full, i_first)")
        writer.lines.append("high = tl.maximum(high, i_next)")
    if chunk:  # columns of two chunks
        writer.edge("tl.maximum(high, tl.minimum(i_full, chunk_first))", "tl.minimum(i_full, chunk_last)")
    for edges in padded([near_edges(z) for z in classes], NO_EDGE):
        low, high = (ints.expression(f"edge_{end}", [getattr(edge, end) for edge in edges]) for end in ("low", "high"))
        writer.edge(
            f"tl.maximum(high, tl.minimum(i_full, {less('j_first', low, sign=1)}))",
            f"tl.minimum(i_full, {less('j_last', high, sign=1)})",
        )
    writer.edge("tl.maximum(high, i_full)", "i_stop")


def is_stride(piece: Piece) -> bool:
    return piece.every > 1 and not piece.from_query


def stride(piece: Piece, z: Zones) -> tuple[int, int, int, int, int] | None:
    """(period, residue, nearest distance, farthest distance, first column) of a stride: which columns it keeps and
    which rows read them; None for a class without this stride."""
    return (piece.every, piece.residue, piece.low, piece.high, z.sink) if piece.low < FAR else None


def near_edges(z: Zones) -> tuple[Edge, ...]:
    """The edges of near rows, nearest first: those of windows, and where a run of columns begins or ends."""
    ends = {end for piece in z.rule if not is_stride(piece) for end in (piece.low, piece.high)}
    return tuple(edge for edge in reversed(z.edges) if edge.low < edge.high or edge.low in ends)


def needed(loads: list[str], body: list[str]) -> list[str]:
    """The loads whose name occurs in the body."""
    words = {word for line in body for word in re.findall(r"\w+", line)}
    return [load for load in loads if load.split(" = ")[0] in words]


def near_rule(rule: list[str], tokens: list[str], strides: list[str]) -> list[str]:
    """The statements of `keeps_near` when the parts given in tokens share blocks with strides, which add them whole."""
    part = ["part = " + tokens[0], *("part |= " + term for term in tokens[1:])]
    part += [f"part &= ~({term})" for term in strides]
    return [*any_of(rule)[:-1], *part, "keep |= part", "return keep"] if rule else [*part, "return part"]


CLOSED = '''{comment}
{classes}
{strides}


@triton.jit
def row_map(pattern, rows, j_first, j_last, i_first, i_whole, i_full, i_stop):
    """(far, all, places, rule) of the rows that are near columns j_first..j_last: how many slots are far, how many
    there are in all, and what `row` and `keeps_near` need. places: for zone n, first_n is its first row less its first
    slot, stop_n the slot behind it."""
{zones}
    return stop_{far}, stop_{last}, places, rule


@triton.jit
def row(slot, places, IS_FAR: tl.constexpr):
    """The row in a slot."""
{row}


@triton.jit
def keeps_near(slot, i, j, t, u, rule):
    """Whether query token t, of the near row i in this slot, adds to key token u, of column j, ignoring the causal
    mask."""
{rule}


@triton.jit
def rule_of(pattern, rows, n):
    """The numbers of a class that `keeps_near` reads. n: any whole number."""
    _, _, _, rule = row_map(pattern, rows, n, n, n, n, n, n)
    return rule

'''

TABLE = '''{comment}
{classes}
STRIDES = ()


@triton.jit
def row_map(pattern, rows, j_first, j_last, i_first, i_whole, i_full, i_stop):
    """The slots of the rows that keep column j_first: those below `far` keep it whole and are whole and past it."""
    pattern += j_first.to(tl.int64) * {record}
    start, part, stop = tl.load(pattern), tl.load(pattern + 1), tl.load(pattern + 2)
    low = search(rows, start, part, i_whole, False)
    high = search(rows, low, part, tl.maximum(i_whole, i_full), True)
    places = (rows, low, high - low, start, low - start, high, stop)
    return (high - low).to(tl.int32), (stop - start).to(tl.int32), places, {rule_values}


@triton.jit
def row(slot, places, IS_FAR: tl.constexpr):
    """The row in a slot: first the far ones, then those before them, then those after them."""
    rows, low, far, start, before, high, stop = places
    at = low + slot
    if not IS_FAR:
        at = tl.where(slot < far, at, start + slot - far)
        at = tl.where(slot < far + before, at, high + slot - far - before)
    return tl.load(rows + at, mask=at < stop, other=0)


@triton.jit
def keeps_near(slot, i, j, t, u, rule):
    """Whether query token t, of the row i in this slot, keeps key token u, of column j, ignoring the causal mask."""
{rule}


@triton.jit
def rule_of(pattern, rows, n):
    """The numbers of a class that `keeps_near` reads, for parts in tokens only: no slot counts as kept whole."""
    return {class_values}

'''


def table_map(plan: Plan) -> str:
    """The index map as arrays: a column's rows, those that keep it whole first, then those that keep it in part."""
    ints = Integers()
    layouts, block, causal = plan.classes.layouts, plan.classes.block, plan.classes.causal
    rule = token_rule(layouts, ints, block=block, causal=causal, first="t", last="t")
    loads = [f"tl.load(pattern + {3 + n})" for n in range(len(ints.names))]
    lines = [*unpacked(["whole", *ints.names], "rule"), *any_of(["slot < whole", *rule])]
    return TABLE.format(
        comment=comment(plan),
        classes="\n".join(ints.table(len(plan.closed))),
        record=3 + len(ints.names),
        rule_values=written(["part - start", *loads]),
        class_values=written(["n * 0", *loads]),
        rule=indented(lines),
    )
