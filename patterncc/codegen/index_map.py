"""The text of the forward kernel's index map: row and slot to column, as arithmetic for one pattern or as a table.

Numbers that all classes share are written as they are. The others stand in CLASS_INTS, a row of integers a class, and
the kernel loads them.
"""

from __future__ import annotations

from patterncc.codegen.bounds import PieceBounds
from patterncc.codegen.statements import any_of, comment, indented, less, packed, unpacked, written
from patterncc.codegen.zone_writer import NO_EDGE, NO_PIECE, Integers, ZoneWriter, chunk_of, padded, token_rule, used_in
from patterncc.codegen.zones import zones_of
from patterncc.ir.plan import Plan


def index_map(plan: Plan) -> str:
    """The index map of `kernels/index_map.py`, between its markers.

    >>> from patterncc.ir.classes import Classes
    >>> from patterncc.passes.choose_plan import choose_plan
    >>> plan = choose_plan(Classes.parse('''demo: block 64, causal, head_dim 128, heads 2, kv_heads 1
    ... class 0: d<4 | j%8==1
    ... class 1: d<4 | j%8==5
    ... layers 0: 0 1'''))
    >>> print(index_map(plan).split("def keeps(")[1].split('"'*3)[2].split("@triton.jit")[0].strip())
    (residue,) = rule
        keep = (j <= i_last - 4) & ((j - residue) % 8 == 0)
        keep |= j > i_first - 4
        return keep
    """
    return table_map(plan) if plan.form == "table" else closed_map(plan)


def closed_map(plan: Plan) -> str:
    """The index map as arithmetic. Slots run through zones, each a run of columns: first the far ones, which all rows
    of a tile keep whole (the sink, then each piece of distances), then the edges between these, and what is not below
    j_whole."""
    causal, block, classes = plan.classes.causal, plan.classes.block, zones_of(plan)
    ints, writer = Integers(), ZoneWriter()
    piece_bounds = PieceBounds(ints, writer.lines, causal)

    writer.lines.append("# far: columns below j_whole that every row keeps")
    sink, sink_edge = (ints.expression(n, [getattr(z, n) for z in classes]) for n in ("sink", "sink_edge"))
    start = reach = "j_first"
    if sink != "0":
        writer.far(start, f"tl.minimum(j_whole, {sink})")
        writer.lines.append("reach = low + stop_0")
        reach = "reach"
    if sink_edge != "0":
        start = f"tl.maximum(j_first, {sink_edge})"
    (chunk, chunkless), end = chunk_of(classes, ints), "j_whole"
    if chunk:
        writer.lines += [f"chunk_{row} = i_{row} // {chunk} * {chunk}" for row in ("first", "last")]
        writer.lines.append("j_near = tl.minimum(j_whole, chunk_first)")
        writer.far(f"tl.maximum({start}, chunk_last)", "j_whole")
        end = "j_near"
    for pieces in padded([z.pieces for z in classes], NO_PIECE) or [(NO_PIECE,) * len(classes)]:
        low, high, every, residue = piece_bounds.expressions(pieces)
        writer.far(
            f"tl.maximum({start}, {less('i_last', high, 1)})" if high else start,
            f"tl.minimum({end}, {less('i_first', low, 1)})" if low not in ("", "1"[:causal]) else end,
            every,
            residue,
        )
    far = len(writer.every)

    writer.lines.append("# edge: around the distances at which the rule changes, then whatever is not below j_whole")
    if sink_edge != sink:
        writer.edge(reach, f"tl.minimum(j_whole, {sink_edge})")
        reach = "high"
    for edges in padded([z.edges for z in classes], NO_EDGE, at_end=False):
        low = ints.expression("edge_low", [edge.low for edge in edges])
        high = ints.expression("edge_high", [edge.high for edge in edges])
        writer.edge(
            f"tl.maximum({reach}, tl.minimum({end}, {less('i_first', high, 1)}))",
            f"tl.minimum({end}, {less('i_last', low, 1)})",
        )
        reach = "high"
    if chunk:  # rows of two chunks
        writer.edge(f"tl.maximum({reach}, j_near)", "tl.minimum(j_whole, chunk_last)")
        reach = "high"
    writer.edge(f"tl.maximum({reach}, j_whole)", "j_stop")

    rule = [f"j < {sink}"] if sink != "0" else []
    rule += [f"j >= i_first // {chunk} * {chunk}" + f" + {chunkless}" * bool(chunkless)] if chunk else []
    rule += [piece_bounds.rule(pieces) for pieces in padded([z.rule for z in classes], NO_PIECE)]
    rule += token_rule(plan.classes.layouts, ints, block=block, causal=causal)
    return write_map(plan, ints, writer, far, rule)


CLOSED = '''{comment}
{classes}


@triton.jit
def index_map(pattern, columns, i_first, i_last, j_first, j_whole, j_stop):
    """(far, all, places, rule) of rows i_first..i_last: how many slots are far, how many there are in all, and what
    `column` and `keeps` need. places: for zone n, first_n is its first column less its first slot, stop_n the slot
    behind it."""
{zones}
    return stop_{far}, stop_{last}, places, rule


@triton.jit
def column(slot, places, IS_FAR: tl.constexpr):
    """The column in a slot."""
{column}


@triton.jit
def keeps(slot, i_first, i_last, j, t_first, t_last, u, rule):
    """Whether one of the query tokens t_first..t_last, of rows i_first..i_last, keeps key token u, of the column j in
    this slot, ignoring the causal mask."""
{rule}


@triton.jit
def rule_of(pattern, columns, n):
    """The numbers of a class that `keeps` reads. n: any whole number."""
    _, _, _, rule = index_map(pattern, columns, n, n, n, n, n)
    return rule

'''


def write_map(plan: Plan, ints: Integers, writer: ZoneWriter, far: int, rule: list[str]) -> str:
    """The source text of `index_map`, `column` and `keeps` for one pattern."""
    rule = any_of(rule)
    used = used_in(rule, ints, writer)
    return CLOSED.format(
        comment=comment(plan),
        classes="\n".join(ints.table(len(plan.closed))),
        zones=indented([*ints.loads(), *writer.lines, *packed("places", writer.places), *packed("rule", used)]),
        far=far - 1,
        last=len(writer.every) - 1,
        column=indented([*unpacked(writer.places, "places"), *writer.choices(far)]),
        rule=indented([*(unpacked(used, "rule") if used else []), *rule]),
    )


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
    this slot, ignoring the causal mask."""
{rule}


@triton.jit
def rule_of(pattern, columns, n):
    """The numbers of a class that `keeps` reads, for parts in tokens only: no slot counts as kept whole."""
    return {class_values}

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
        rule_values=written(["whole - low", *loads]),
        class_values=written(["n * 0", *loads]),
        rule=indented([*lines, "return keep"]),
    )
