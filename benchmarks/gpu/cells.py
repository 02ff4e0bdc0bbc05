"""What each part measures, in order: plain data, read by the process that conducts and by those that measure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.cases import CASES, TOY
from benchmarks.gpu.changes import TOY_VARIANT, VARIANTS
from benchmarks.gpu.selections import DECIDING, FAST, SELECTIONS

BATCH = 4  # of the ancestor's benchmark
LENGTHS = tuple(1 << n for n in range(10, 17))  # 1k to 64k, likewise
APART = "ancestor", "thin", "table"  # cases that are not measured as one of many
USUAL = 16384  # tokens, where one thing is varied and the length is not


@dataclass(frozen=True)
class Cell:
    """One thing to measure: `given` says what, and stands in each of its rows; `needs_s` is about how long it takes."""

    name: str
    needs_s: float
    given: Mapping[str, Any]


PARTS = ("compiling", "ceilings", "attention", "serving", "host", "peers", "families", "variants", "first_call")
STEPS = "decode", "launches", "sharing"  # of one token, which that family is not for
BY_GLUON = " by gluon"  # of what is compiled: large calls take that family unasked
TIMED = ("attention", "serving", "host", "peers", "families", "variants")  # parts whose kernels are compiled before


def cells(part: str, *, toy: bool = False, select: str = "") -> tuple[Cell, ...]:
    """The cells of a part, the most telling ones first: when time runs out, the last ones stay empty. `select`: of
    them those of a selection, in its order."""
    if part == "compiling":
        return _compiling(toy, select)
    found = {
        "ceilings": _ceilings,
        "attention": _attention,
        "families": _families,
        "variants": _variants,
        "serving": _serving,
        "host": _host,
        "first_call": _first_call,
        "peers": _peers,
    }[part](toy)
    if toy or not select:
        return found
    named = {cell.name: cell for cell in found}
    return tuple(named[name] for known, names in SELECTIONS[select] for name in names if known == part)


def in_turn(chosen: Collection[str], *, toy: bool = False, select: str = "") -> list[tuple[str, Cell]]:
    """The cells of the chosen parts that are timed, each with its part, in the order in which they are: those of a
    selection in its own; else the most telling ones of all parts, then those that constants wait for, then the others
    part by part. What time runs out for is then told by another cell."""
    every = [(part, cell) for part in PARTS[1:] if part in chosen for cell in cells(part, toy=toy, select=select)]
    if select:
        order = [name for _, names in SELECTIONS[select] for name in names]
        return every if toy else sorted(every, key=lambda known: order.index(known[1].name))
    groups = FAST, DECIDING

    def group(known: tuple[str, Cell]) -> int:
        return next((n for n, names in enumerate(groups) if known[1].name in names.get(known[0], ())), len(groups))

    return sorted(every, key=group)  # as they were, else


def in_order(
    results: Mapping[str, Sequence[Mapping[str, Any]]], *, toy: bool = False
) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of each part in the order of its cells, whenever they were measured."""

    def place(part: str) -> Callable[[Mapping[str, Any]], int]:
        names = [cell.name for cell in cells(part, toy=toy)]
        return lambda row: names.index(row["cell"]) if row.get("cell") in names else len(names)

    return {part: sorted(rows, key=place(part)) if part in PARTS else list(rows) for part, rows in results.items()}


def completed(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of each part, and one without figures for each cell of a part that has been begun and not come to it."""
    found = {part: list(rows) for part, rows in results.items()}
    for part, rows in found.items():
        if part in PARTS and rows:
            measured = {row.get("cell") for row in rows}
            rows += ({"cell": cell.name, **cell.given} for cell in cells(part) if cell.name not in measured)
    return found


def _ceilings(toy: bool) -> tuple[Cell, ...]:
    plain = [Cell(what, 1, {"what": what}) for what in ("copy", "matrix product")]
    dims = (16,) if toy else (128, 64, 256)
    dense = [
        Cell(f"dense, head dim {dim}, {backend}", 3, {"what": "dense", "head_dim": dim, "backend": backend})
        for dim in dims
        for backend in ("flash", "cudnn", "efficient")
    ]
    return (*plain, *dense)


def _first_call(toy: bool) -> tuple[Cell, ...]:
    case = TOY.name if toy else "ancestor"
    seconds = {"shipped binaries": 15, "nothing shipped": 60, "FlexAttention": 60}  # some run twice
    return tuple(Cell(what, needs, {"what": what, "case": case}) for what, needs in seconds.items())


def _compiling(toy: bool, select: str) -> tuple[Cell, ...]:
    """Everything that later parts launch, apart, so that all cores have work: what takes longest first."""
    later = [cell for part in TIMED for cell in cells(part, toy=toy, select=select)]
    peers = [
        Cell(f"{cell.name}, blocks of {size}" if size else cell.name, 0, {**cell.given, "sizes": (size,)})
        for cell in later
        if "peer" in cell.given
        for size in cell.given.get("sizes", (0,))
    ]
    changed = {cell.given["case"] for cell in later if cell.given.get("base", cell.given["case"]) != cell.given["case"]}
    training = dict.fromkeys((cell.given["case"], "training") for cell in later)
    others = dict.fromkeys((cell.given["case"], cell.given["what"]) for cell in later if "what" in cell.given)
    gluon = {(case, f"{what}{BY_GLUON}"): None for case, what in training | others if what not in STEPS}
    ours = {key: None for key in gluon | training | others if key[0] not in changed or key[1].endswith(BY_GLUON)}
    fused = {
        (cell.given["case"], f"training by {family}"): None for cell in later if (family := cell.given.get("family"))
    }
    return (*peers, *(Cell(f"{case}, {what}", 0, {"case": case, "what": what}) for case, what in fused | ours))


def _host(toy: bool) -> tuple[Cell, ...]:
    return (Cell("host", 6, {"case": TOY.name if toy else "grouped", "what": "decode"}),)


def _attention(toy: bool) -> tuple[Cell, ...]:
    if toy:
        return (_sequence("toy", 1, 60, 1),)
    long = (_sequence("thin", 1, 131072, 20), _sequence("thin", 1, 1 << 20, 30, flash=False))
    ancestor = [_sequence("ancestor", BATCH, tokens, 4 + tokens / 8192) for tokens in reversed(LENGTHS)]
    varied = [_sequence(name, 1, USUAL, 4) for name in CASES if name not in APART]
    alike = _sequence("ancestor", 1, USUAL, 4)  # block 64, head dim 128, beside the others
    return (*long[:1], *ancestor, alike, *varied, *long[1:])


def _sequence(case: str, batch: int, tokens: int, needs_s: float, **rest: Any) -> Cell:
    return Cell(f"{case}, {batch} x {tokens}", needs_s, {"case": case, "batch": batch, "tokens": tokens, **rest})


def _families(toy: bool) -> tuple[Cell, ...]:
    """The backward in Gluon, and tables in it, are taken unasked, or not, by what these show."""
    sizes = [("ancestor", BATCH, USUAL), ("ancestor", 1, USUAL), ("ancestor", 1, 65536), ("grouped", 1, USUAL)]
    sizes += [("dense", 1, USUAL), ("block16", BATCH, USUAL), ("dim64", BATCH, USUAL), ("dim256", BATCH, USUAL)]
    sizes += [("table", BATCH, USUAL), ("window", 1, 32768), ("ancestor", BATCH, 4096), ("ancestor", 1, 2048)]
    found = [_sequence(*size, 6) for size in ([(TOY.name, 1, 60)] if toy else sizes)]
    return tuple(Cell(f"families: {cell.name}", cell.needs_s, cell.given) for cell in found)


def _variants(toy: bool) -> tuple[Cell, ...]:
    """A package against a copy of it in which one line is another: what constants and kernels might become."""
    return tuple(
        Cell(
            f"variants: {name}",
            4 * len(each.directions),
            {
                "case": each.case,
                "base": each.base,
                "family": each.family,
                "batch": each.batch,
                "tokens": each.tokens,
                "directions": each.directions,
                "constant": each.constant,
            },
        )
        for name, each in ({TOY.name: TOY_VARIANT} if toy else VARIANTS).items()
    )


def _serving(toy: bool) -> tuple[Cell, ...]:
    """Decoding first; `lengths` are of requests, or of packed sequences."""
    if toy:
        decode, merged, shared = [("toy", 2, 70)], [("toy", 1, 70)], [("toy", 2, 70)]
        varlen = ("toy", (37, 1, 0, 18))
        paged = ("toy", (1, 5, 18), (64, 40, 18))
    else:
        sizes = ((64, 16384), (16, 32768), (1, 131072), (1, 4096), (1, 1 << 20))
        decode = [(case, *size) for case in ("grouped", "apart") for size in sizes]
        merged = [("grouped", 1, 131072), ("grouped", 4, 16384)]
        shared = [("apart", *size) for size in ((16, 4096), (16, 16384), (1, 4096), (16, 32768))]
        varlen = ("ancestor", (16384, 8192, 4096, 2048, 1024, 1000))
        paged = ("grouped", (1,) * 32 + (2048, 8192), (16384,) * 33 + (8192,))
    return (
        *(_steps("decode", *given) for given in decode),
        *(_steps("launches", *given) for given in merged),
        *(_steps("sharing", *given) for given in shared),
        Cell("varlen", 8, {"what": "varlen", "case": varlen[0], "lengths": varlen[1]}),
        Cell("paged", 8, {"what": "paged", "case": paged[0], "queries": paged[1], "lengths": paged[2]}),
    )


def _steps(what: str, case: str, requests: int, tokens: int) -> Cell:
    given = {"what": what, "case": case, "requests": requests, "tokens": tokens}
    return Cell(f"{what} {case}, {requests} x {tokens}", 8 if what == "launches" else 4, given)


def _peers(toy: bool) -> tuple[Cell, ...]:
    if toy:
        rest = (_peer(peer, "toy", 1, 64, 1) for peer in ("fa4", "flash_sparse"))
        return (_peer("dkernel", "toy", 1, 64, 1), _peer("flex", "toy", 1, 64, 1, sizes=(16, 32)), *rest)
    varied = [name for name in CASES if name not in APART]
    return (
        _peer("flex", "ancestor", BATCH, USUAL, 12),
        _peer("dkernel", "ancestor", BATCH, USUAL, 12),
        _peer("fa4", "ancestor", BATCH, USUAL, 12),
        _peer("fa4", "block128", 1, USUAL, 8),
        _peer("flash_sparse", "ancestor", 1, USUAL, 8),
        *(_peer("flex", "ancestor", BATCH, tokens, 15) for tokens in (4096, 65536)),
        *(_peer("dkernel", "ancestor", BATCH, tokens, 15) for tokens in (4096, 65536)),
        *(_peer("flex", name, 1, USUAL, 8) for name in varied),
    )


def _peer(peer: str, case: str, batch: int, tokens: int, needs_s: float, **rest: Any) -> Cell:
    """FlexAttention in its default blocks and in the pattern's own, where it has such: the faster one counts.
    FlashAttention-4 has blocks of 128 on sm_90."""
    if peer == "fa4":
        rest["sizes"] = (16,) if case == TOY.name else (128,)
    if peer == "flex" and "sizes" not in rest:
        rest["sizes"] = (128, 64) if case == TOY.name or CASES[case].block < 128 else (128,)
    given = {"peer": peer, "case": case, "batch": batch, "tokens": tokens, **rest}
    return Cell(f"{peer}: {case}, {batch} x {tokens}", needs_s, given)
