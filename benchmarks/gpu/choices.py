"""A value for each open constant, computed from the rows of a run; nothing is measured here.

A constant is open while it stands for a guess, or for a measurement of other code. For each there are cells that
compare its values in one process, in alternation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.gpu import taken
from benchmarks.gpu.cases import by_name
from benchmarks.gpu.cells import cells
from benchmarks.gpu.changes import VARIANTS
from benchmarks.gpu.decision import Decision, Rows, empty, faster, held, missing
from benchmarks.gpu.ratios import Ratio, judged, ratio
from benchmarks.gpu.selections import DECIDING
from benchmarks.gpu.taken import Measured, Present

CONFIGS = "launch/configs.py"


def decisions(results: Mapping[str, Rows], present: Present) -> list[Decision]:
    """One for each open constant, and where it is one for several head dims, for each of them."""
    known = {cell.given["case"] for cell in cells("families")}
    families = [row for row in results.get("families", ()) if row.get("case") in known]
    families = [row for row in families if row.get("gluon_ms") and row.get("triton_ms") and row.get("is_hopper")]
    variants = [row for row in results.get("variants", ()) if row.get("now_ms") and row.get("is_hopper")]
    fused = [row for row in variants if row.get("family") == "fused"]
    serving = results.get("serving", ())
    notes = {row["cell"]: row["note"] for rows in results.values() for row in rows if "note" in row and "cell" in row}
    measured = Measured(families, fused, notes, present)
    return [
        *taken.decisions(measured),
        taken.least_tiles(measured, families),
        *_changed([row for row in variants if row.get("family") != "fused"], notes),
        _merged([row for row in serving if row.get("two_over_one")], notes, present),
        _shared([row for row in serving if row.get("apart_over_shared")], notes, present),
    ]


def _changed(rows: Rows, notes: Mapping[str, str]) -> list[Decision]:
    """Lines that become others, each with all cells that it was changed in."""
    found: list[Decision] = []
    for constant in dict.fromkeys(each.constant for each in VARIANTS.values() if each.file):
        entries = [each for each in VARIANTS.values() if each.constant == constant]
        own = [row for row in rows if row.get("constant") == constant]
        lacks = empty([f"variants: {each.name}" for each in entries], own, notes)
        if not own:
            found.append(missing(constant, "as it is", lacks, "stays as it is"))
            continue
        ratios = [_of(row, ratio(row, "now", "changed")) for row in own]
        verdict = judged(ratios)
        becomes = "is taken" if verdict.sign > 0 else "stays as it is"
        because = faster(verdict, "changed"), *map(str, ratios)
        line = entries[0].changed if verdict.sign > 0 else ""
        decision = Decision(constant, "as it is", becomes, verdict.sure, because, line)
        found.append(held(decision, lacks, "stays as it is"))
    return found


def _merged(rows: Rows, notes: Mapping[str, str], present: Present) -> Decision:
    """Whether the last program of a tile merges, or a second launch does; by steps as packages take them."""
    about, now = f"decoding: MOST_MERGED of {CONFIGS}", present("MOST_MERGED", CONFIGS)
    lacks = empty(_steps("launches"), rows, notes)
    if not rows:
        return missing(about, now, lacks)
    first = {row["cell"]: row for row in reversed(rows)}  # of each cell the one with as many programs as are taken
    ratios = [_graphs(row, "two", "one") for row in rows]
    found = judged([_graphs(row, "two", "one") for row in first.values()])
    said = [f"{each}, {row['splits']} programs" for each, row in zip(ratios, rows, strict=True)]
    because = faster(found, "one launch"), *said
    if found.sign >= 0:
        return held(Decision(about, now, "stays", found.sure, because), lacks, "stays")
    taken = [_numbers(row) for row in rows]
    won = [n for n, row in zip(taken, rows, strict=True) if judged([_graphs(row, "two", "one")]).sign > 0]
    most = max((n for n in won if n < min(_numbers(row) for row in first.values())), default=0)
    line = f"{CONFIGS}: MOST_MERGED = {most}"
    return held(Decision(about, now, f"becomes {most}", found.sure, because, line), lacks, "stays")


def _shared(rows: Rows, notes: Mapping[str, str], present: Present) -> Decision:
    """From which share of saved loads on near keys are shared: above those of all cells that lose by it."""
    about, now = f"decoding: LEAST_SAVED of {CONFIGS}", present("LEAST_SAVED", CONFIGS)
    lacks = empty(_steps("sharing"), rows, notes)
    if not rows:
        return missing(about, now, lacks)
    each = sorted(((row["saved"], _graphs(row, "apart", "shared")) for row in rows), key=lambda known: known[0])
    because = tuple(f"{found}, {saved:.3f} of the loads saved" for saved, found in each)
    lost = [(saved, judged([found])) for saved, found in each if judged([found]).sign < 0]
    if not lost:
        sure = "sure" if all(judged([x]).sure == "sure" for _, x in each) else "likely"
        return held(Decision(about, now, "stays", sure, because), lacks, "stays")
    saved, worst = max(lost, key=lambda known: known[0])
    least = min((n for n, _ in each if n > saved), default=2)
    becomes = f"becomes {least}" + ": never" * (least == 2)
    line = f"{CONFIGS}: LEAST_SAVED = {least}"
    return held(Decision(about, now, becomes, worst.sure, because, line), lacks, "stays")


def _steps(what: str) -> list[str]:
    return [cell.name for cell in cells("serving") if cell.given["what"] == what and cell.name in DECIDING["serving"]]


def _numbers(row: Mapping[str, Any]) -> int:
    """The numbers that the last program of a tile merges, in the unit of MOST_MERGED: programs * query heads of a KV
    head * head_dim."""
    case = by_name(row["case"])
    return row["splits"] * case.heads // case.kv_heads * case.head_dim


def _graphs(row: Mapping[str, Any], slow: str, fast: str) -> Ratio:
    return ratio(row, slow, fast, "graph_ms", "graph_spread")


def _of(row: Mapping[str, Any], found: Ratio) -> Ratio:
    return Ratio(f"{found.cell}, {row['direction']}", found.value, found.doubt)
