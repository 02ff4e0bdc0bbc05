"""Which family of kernels packages take unasked, by what a run measured: constants that stand for one head dim or for
several, and hold of each other.

The fused backward is a part of the family in Gluon: where that is not taken unasked, neither is it. Tables are taken by
a direction only where closed forms are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from benchmarks.gpu.cases import by_name
from benchmarks.gpu.cells import cells
from benchmarks.gpu.changes import VARIANTS
from benchmarks.gpu.decision import Decision, Rows, empty, faster, held, missing
from benchmarks.gpu.ratios import Judged, Ratio, judged, ratio
from benchmarks.gpu.selections import DECIDING

Present = Callable[[str, str], str]  # of a constant and its file: its text as it is now
HOPPER, BACKWARD, FUSED = "launch/hopper.py", "launch/hopper_backward.py", "launch/hopper_fused.py"
FILES = {"IS_FASTER": HOPPER, "BY_DEFAULT": BACKWARD, "FUSED_BY_DEFAULT": FUSED, "TABLES_BY_DEFAULT": HOPPER}
DIMS = {"IS_FASTER": (64, 128, 256), "BY_DEFAULT": (64, 128), "FUSED_BY_DEFAULT": (64, 128)}
TABLE = 128  # head dim of the case in table form
CLOSED = {"forward": "IS_FASTER", "backward": "BY_DEFAULT"}  # what a direction is taken by


@dataclass(frozen=True)
class Measured:
    """Rows of both families, rows of the fused backward, and why other cells have none."""

    families: Rows
    fused: Rows
    notes: Mapping[str, str]
    present: Present

    def is_on(self, constant: str, head_dim: int) -> bool:
        """Whether a constant, as its text is now, holds for packages of a head dim."""
        text = self.present(constant, FILES[constant])
        return text == "True" or str(head_dim) in re.findall(r"\d+", text)

    def of(self, direction: str, head_dim: int, is_table: bool = False) -> tuple[Rows, Collection[str]]:
        """The rows of work that is large enough, and the names of the cells that are to have such."""
        key = head_dim, is_table
        rows = [row for row in self.families if row["direction"] == direction and _key(row) == key]
        known = {cell.name: cell for cell in cells("families")}
        asked = [name for name in known if name in DECIDING["families"] or name in self.notes]
        small = {row["cell"] for row in rows if row.get("is_large") is False}
        wanted = [name for name in asked if _key(known[name].given) == key and known[name].given["tokens"] > 2048]
        return [row for row in rows if row.get("is_large", True)], [name for name in wanted if name not in small]


def decisions(measured: Measured) -> list[Decision]:
    """One for each constant and each head dim, with the line that follows from all that are sure."""
    closed = {
        (constant, dim): _family(measured, direction, dim)
        for direction, constant in CLOSED.items()
        for dim in DIMS[constant]
    }
    fused = {("FUSED_BY_DEFAULT", dim): _fused(measured, dim) for dim in DIMS["FUSED_BY_DEFAULT"]}
    for dim in DIMS["FUSED_BY_DEFAULT"]:
        key = "BY_DEFAULT", dim
        closed[key], fused["FUSED_BY_DEFAULT", dim] = _together(
            measured, dim, closed[key], fused["FUSED_BY_DEFAULT", dim]
        )
    by_dim = _with_lines(measured, closed | fused)
    return [*by_dim.values(), *_tables(measured, by_dim)]


def _family(measured: Measured, direction: str, dim: int) -> Decision:
    constant = CLOSED[direction]
    about = f"{direction}, head dim {dim}: {constant} of {FILES[constant]}"
    rows, wanted = measured.of(direction, dim)
    return _judged(measured, about, measured.is_on(constant, dim), rows, wanted, "gluon", _families(rows))


def _judged(
    measured: Measured, about: str, now: bool, rows: Rows, wanted: Collection[str], what: str, ratios: list[Ratio]
) -> Decision:
    """Whether something is to be taken unasked, by how many times as fast it is."""
    lacks, off = empty(wanted, rows, measured.notes), "becomes False" if now else "stays"
    if not rows:
        return missing(about, str(now), lacks, off)
    found = judged(ratios)
    becomes = "stays" if not found.sign or (found.sign > 0) == now else f"becomes {found.sign > 0}"
    return held(Decision(about, str(now), becomes, found.sure, (faster(found, what), *map(str, ratios))), lacks, off)


def _families(rows: Rows) -> list[Ratio]:
    return [ratio(row, "triton", "gluon") for row in rows]


def _fused(measured: Measured, dim: int) -> Decision:
    about = f"backward in one kernel, head dim {dim}: FUSED_BY_DEFAULT of {FUSED}"
    rows = [row for row in measured.fused if by_name(row["case"]).head_dim == dim]
    wanted = [f"variants: {name}" for name, each in VARIANTS.items() if _is_fused(each.family, each.base, dim)]
    ratios = [ratio(row, "now", "changed") for row in rows]
    return _judged(measured, about, measured.is_on("FUSED_BY_DEFAULT", dim), rows, wanted, "fused over gluon", ratios)


def _is_fused(family: str, base: str, dim: int) -> bool:
    return family == "fused" and by_name(base).head_dim == dim


def _together(measured: Measured, dim: int, apart: Decision, fused: Decision) -> tuple[Decision, Decision]:
    """Both decisions of a head dim's backward, where the fused one is faster than the kernels of its family: it is
    taken only with these, so they are too if it is faster than the plain ones; else it stays off."""
    over = _over_triton(measured, dim)
    if not _on(fused) or _on(apart) or apart.becomes == "becomes False" or not over:
        return apart, fused
    found = judged(over)
    said = faster(found, "fused over triton"), *map(str, over)
    if found.sign <= 0:
        return apart, replace(fused, becomes="stays", because=(*fused.because, *said))
    packed = "for the fused one, which is taken only where this is; packed sequences then take gluon's kernels"
    return (
        replace(apart, becomes="becomes True", sure="likely", because=(packed, *said, *apart.because)),
        replace(fused, sure="likely", because=(*fused.because, *said)),
    )


def _over_triton(measured: Measured, dim: int) -> list[Ratio]:
    """How many times as fast as the plain kernels the fused one is, from two cells of the same sizes."""
    plain = {_size(row): ratio(row, "triton", "gluon") for row in measured.of("backward", dim)[0]}
    found: list[Ratio] = []
    for row in measured.fused:
        if by_name(row["case"]).head_dim == dim and (other := plain.get(_size(row))):
            own = ratio(row, "now", "changed")
            value = own.value * other.value
            found.append(Ratio(own.cell, value, value * (own.doubt / own.value + other.doubt / other.value)))
    return found


def _size(row: Mapping[str, object]) -> tuple[object, ...]:
    return tuple(row.get(name) for name in ("case", "batch", "tokens"))


def _on(decision: Decision) -> bool:
    """Whether what it is about is taken, once it is followed."""
    return decision.becomes == "becomes True" or (decision.now == "True" and decision.becomes == "stays")


def _with_lines(measured: Measured, found: Mapping[tuple[str, int], Decision]) -> dict[tuple[str, int], Decision]:
    """Those that become something else say the whole line: of other head dims with what is sure."""

    def line(constant: str, dim: int) -> str:
        own = {at: each for (name, at), each in found.items() if name == constant}
        on = [at for at, each in own.items() if (_on(each) if each.sure == "sure" or at == dim else each.now == "True")]
        return f"{FILES[constant]}: {constant} = {_text(on)}"

    return {
        key: replace(each, line=line(*key)) if each.becomes.startswith("becomes") else each
        for key, each in found.items()
    }


def _text(dims: Iterable[int]) -> str:
    """Which packages a constant holds for, as the templates write it.

    >>> [_text(dims) for dims in ((), (64,), (64, 128))]
    ['False', 'HEAD_DIM == 64', 'HEAD_DIM in (64, 128)']
    """
    dims = tuple(dims)
    return "False" if not dims else f"HEAD_DIM == {dims[0]}" if len(dims) == 1 else f"HEAD_DIM in {dims}"


def _tables(measured: Measured, closed: Mapping[tuple[str, int], Decision]) -> list[Decision]:
    """One for each direction, of one constant for both."""
    constant, found = "TABLES_BY_DEFAULT", list[Decision]()
    now = measured.present(constant, HOPPER) == "True"
    for direction, of_closed in CLOSED.items():
        about = f"{direction}, tables, head dim {TABLE}: {constant} of {HOPPER}"
        rows, wanted = measured.of(direction, TABLE, is_table=True)
        each = _judged(measured, about, now, rows, wanted, "gluon", _families(rows))
        if each.becomes == "becomes True" and not _on(closed[of_closed, TABLE]):
            each = replace(
                each, becomes="stays", because=(*each.because, f"{of_closed} of {TABLE} is off, and so is this")
            )
        found.append(each)
    matter = [each for each, of_closed in zip(found, CLOSED.values(), strict=True) if _on(closed[of_closed, TABLE])]
    changed = [each for each in matter if each.becomes.startswith("becomes")]
    if changed and len({_on(each) for each in matter}) > 1:
        why = "one constant is for both directions, which differ"
        return [
            replace(each, sure="likely", because=(*each.because, why)) if each in changed else each for each in found
        ]
    line = f"{HOPPER}: {constant} = {not now}"
    return [replace(each, line=line) if each in changed else each for each in found]


def least_tiles(measured: Measured, rows: Rows) -> Decision:
    """From how much work on the second family is taken, where it is taken at all."""
    constant = "LEAST_TILES"
    about, now = f"small calls: {constant} of {HOPPER}", measured.present(constant, HOPPER)
    small = [row for row in rows if row.get("is_large") is False and row.get("unasked")]
    if not small:
        wanted = [cell.name for cell in cells("families") if cell.given["tokens"] <= 2048]
        return missing(about, now, empty(wanted, (), measured.notes))
    ratios = _families(small)
    found: Judged = judged(ratios)
    tiles = min(_tiles(row) for row in small)
    host = [f"launching takes {row['gluon_host_ms']:.3f} ms, triton's {row['triton_host_ms']:.3f} ms: {row['cell']}"
            for row in small if row.get("gluon_host_ms") and row.get("triton_host_ms")]  # fmt: skip
    because = faster(found, "gluon"), *map(str, ratios), *host
    if found.sign <= 0 or tiles < 1:
        return Decision(about, now, "stays", found.sure, because)
    return Decision(about, now, f"becomes {tiles}", found.sure, because, f"{HOPPER}: {constant} = {tiles}")


PROCESSORS, TILE = 132, {64: 192, 128: 128, 256: 128}  # of an H100 or H200; rows of a program's tile, by head dim


def _tiles(row: Mapping[str, object]) -> int:
    """Tiles of a row's queries for each processor, whole ones."""
    case, batch, tokens = by_name(str(row["case"])), int(str(row["batch"])), int(str(row["tokens"]))
    return batch * case.heads * tokens // (PROCESSORS * TILE[case.head_dim])


def _key(row: Mapping[str, object]) -> tuple[int, bool]:
    case = by_name(str(row["case"]))
    return case.head_dim, case.plan == "table"
