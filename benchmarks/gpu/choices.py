"""A value for each open constant, computed from the rows of a run; nothing is measured here.

A constant is open while it stands for a guess, or for a measurement of other code. For each there are cells that
compare its values in one process, in alternation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.gpu.cases import by_name
from benchmarks.gpu.cells import cells
from benchmarks.gpu.changes import VARIANTS
from benchmarks.gpu.ratios import Judged, Ratio, judged, ratio

Rows = Sequence[Mapping[str, Any]]
Present = Callable[[str, str], str]  # of a constant and its file: its text as it is now
MISSING = "not measured"
HOPPER, BACKWARD, CONFIGS = "launch/hopper.py", "launch/hopper_backward.py", "launch/configs.py"
# direction, head dim, and whether the index map is a table: what takes the second family unasked
FAMILIES = {("forward", dim, False): ("IS_FASTER", HOPPER) for dim in (64, 128, 256)}
FAMILIES |= {("backward", dim, False): ("BY_DEFAULT", BACKWARD) for dim in (64, 128)}
FAMILIES |= {(way, 128, True): ("TABLES_BY_DEFAULT", HOPPER) for way in ("forward", "backward")}


@dataclass(frozen=True)
class Decision:
    """A constant, its present value, what the measurement supports, how sure that is, and why."""

    about: str
    now: str
    becomes: str
    sure: str
    because: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.about}, now {self.now}: {self.becomes} ({self.sure})"]
        return "\n".join([*lines, *(f"    {line}" for line in self.because)])


def decisions(results: Mapping[str, Rows], present: Present) -> list[Decision]:
    """One for each open constant, and where it is one for several head dims, for each of them."""
    known = {cell.given["case"] for cell in cells("families")}
    families = [row for row in results.get("families", ()) if row.get("case") in known]
    families = [row for row in families if row.get("gluon_ms") and row.get("triton_ms") and row.get("is_hopper")]
    serving = results.get("serving", ())
    notes = {row["cell"]: row["note"] for rows in results.values() for row in rows if "note" in row and "cell" in row}
    found = [
        *(_family(key, families, present) for key in FAMILIES),
        _least_tiles(families, present),
        *_changed(results.get("variants", ())),
        _merged([row for row in serving if row.get("two_over_one")], present),
        _shared([row for row in serving if row.get("apart_over_shared")], present),
    ]
    return [_explained(each, notes) for each in found]


def _family(key: tuple[str, int, bool], rows: Rows, present: Present) -> Decision:
    """Which family a direction takes unasked for a head dim, of work that is large enough."""
    direction, head_dim, is_table = key
    constant, file = FAMILIES[key]
    own = [row for row in rows if _key(row) == key and row.get("is_large", True)]
    about = f"{direction}, {'tables, ' * is_table}head dim {head_dim}: {constant} of {file}"
    if not own:
        wanted = [cell.name for cell in cells("families") if _key({**cell.given, "direction": direction}) == key]
        return _missing(about, present(constant, file), wanted)
    ratios = [ratio(row, "triton", "gluon") for row in own]
    found, now = judged(ratios), own[0].get("unasked")
    becomes = "stays" if not found.sign or (found.sign > 0) == now else f"becomes {found.sign > 0}"
    return Decision(about, str(now), becomes, found.sure, (_said(found, "gluon"), *map(str, ratios)))


def _key(row: Mapping[str, Any]) -> tuple[str, int, bool]:
    case = by_name(row["case"])
    return row["direction"], case.head_dim, case.plan == "table"


def _least_tiles(rows: Rows, present: Present) -> Decision:
    """From how much work on the second family is taken, where it is taken at all."""
    constant = "LEAST_TILES"
    about, now = f"small calls: {constant} of {HOPPER}", present(constant, HOPPER)
    small = [row for row in rows if row.get("is_large") is False and row.get("unasked")]
    if not small:
        return _missing(about, now, [cell.name for cell in cells("families") if cell.given["tokens"] <= 2048])
    ratios = [ratio(row, "triton", "gluon") for row in small]
    found = judged(ratios)
    because = _said(found, "gluon"), *map(str, ratios), "beside it counts what Python takes to launch: gluon_host_ms"
    return Decision(about, now, "falls" if found.sign > 0 else "stays", found.sure, because)


def _changed(rows: Rows) -> list[Decision]:
    """Lines that become others, each with all cells that it was changed in."""
    found: list[Decision] = []
    for constant in dict.fromkeys(each.constant for each in VARIANTS.values()):
        own = [row for row in rows if row.get("constant") == constant and row.get("now_ms") and row.get("is_hopper")]
        if not own:
            names = [name for name, each in VARIANTS.items() if each.constant == constant]
            found.append(_missing(constant, "as it is", [f"variants: {name}" for name in names]))
            continue
        ratios = [_of(row, ratio(row, "now", "changed")) for row in own]
        verdict = judged(ratios)
        becomes = "is taken" if verdict.sign > 0 else "stays as it is"
        found.append(
            Decision(constant, "as it is", becomes, verdict.sure, (_said(verdict, "changed"), *map(str, ratios)))
        )
    return found


def _merged(rows: Rows, present: Present) -> Decision:
    """Whether the last program of a tile merges, or a second launch does; by steps as packages take them."""
    about, now = f"decoding: MOST_MERGED of {CONFIGS}", present("MOST_MERGED", CONFIGS)
    if not rows:
        return _missing(about, now, [cell.name for cell in cells("serving") if cell.given["what"] == "launches"])
    first = {row["cell"]: row for row in reversed(rows)}  # of each cell the one with as many programs as are taken
    ratios = [_graphs(row, "two", "one") for row in rows]
    found = judged([_graphs(row, "two", "one") for row in first.values()])
    becomes = "becomes 0" if found.sign < 0 else "stays"
    because = (
        _said(found, "one launch"),
        *(f"{each}, {row['splits']} programs" for each, row in zip(ratios, rows, strict=True)),
    )
    return Decision(about, now, becomes, found.sure, because)


def _shared(rows: Rows, present: Present) -> Decision:
    """From which share of saved loads on near keys are shared: above those of all cells that lose by it."""
    about, now = f"decoding: LEAST_SAVED of {CONFIGS}", present("LEAST_SAVED", CONFIGS)
    if not rows:
        return _missing(about, now, [cell.name for cell in cells("serving") if cell.given["what"] == "sharing"])
    each = sorted(((row["saved"], _graphs(row, "apart", "shared")) for row in rows), key=lambda known: known[0])
    because = tuple(f"{found}, {saved:.3f} of the loads saved" for saved, found in each)
    lost = [(saved, judged([found])) for saved, found in each if judged([found]).sign < 0]
    if not lost:
        return Decision(
            about, now, "stays", "sure" if all(judged([x]).sure == "sure" for _, x in each) else "likely", because
        )
    saved, worst = max(lost, key=lambda known: known[0])
    becomes = f"rises above {saved:.3f}" if any(n > saved for n, _ in each) else "becomes 2: never"
    return Decision(about, now, becomes, worst.sure, because)


def _graphs(row: Mapping[str, Any], slow: str, fast: str) -> Ratio:
    return ratio(row, slow, fast, "graph_ms", "graph_spread")


def _of(row: Mapping[str, Any], found: Ratio) -> Ratio:
    return Ratio(f"{found.cell}, {row['direction']}", found.value, found.doubt)


def _said(found: Judged, what: str) -> str:
    if not found.sign:
        return f"neither is faster: {what} is {found.mean:.3f} times as fast by the geometric mean"
    return f"{what} is {found.mean:.3f} times as fast by the geometric mean"


def _missing(about: str, now: str, wanted: Sequence[str]) -> Decision:
    """Of which cells nothing was measured."""
    return Decision(about, now, "stays", MISSING, tuple(wanted))


def _explained(decision: Decision, notes: Mapping[str, str]) -> Decision:
    """A decision that is still open: the cells that it waits for, and why they were not measured."""
    if decision.sure != MISSING:
        return decision
    waits = f"it waits for: {'; '.join(decision.because) or 'no cell'}"
    return replace(decision, because=(waits, *(f"{cell}: {notes[cell]}" for cell in decision.because if cell in notes)))
