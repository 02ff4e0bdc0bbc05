"""The open constants, each with the value that a run of the GPU suite supports, and the goals, met or missed."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import targets
from benchmarks.gpu.cells import completed, in_order
from benchmarks.gpu.choices import decisions
from benchmarks.gpu.decision import changes
from benchmarks.gpu.shares import with_shares

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "codegen_templates", ROOT / "packages" / "bench_ancestor"  # of a clone, of a prepared folder
WORST = 3  # cells that are shown of a goal


def read(files: Sequence[Path]) -> dict[str, Any]:
    """The results of several files as one: of a cell that several have, the last one's. A folder is its gpu.json.

    Exits where one is not there, or not of the suite."""
    found: dict[str, Any] = {}
    for file in (path / "gpu.json" if path.is_dir() else path for path in files):
        try:
            document = json.loads(file.read_text())
            if not isinstance(document, dict) or "machine" not in document:
                raise ValueError("it has no machine")
            rows = [row for part in document.values() if isinstance(part, list) for row in part]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("its parts are not lists of rows")
        except (OSError, ValueError) as error:
            sys.exit(f"{file} is not what `python -m benchmarks gpu --results DIR` writes: {error}")
        for name, rows in document.items():
            if isinstance(rows, list) and name != "targets":
                new = {row.get("cell") for row in rows}
                found[name] = [row for row in found.get(name, ()) if row.get("cell") not in new] + rows
            else:
                found[name] = rows
    return found


def lines(results: Mapping[str, Any]) -> Iterator[str]:
    """All that is to be read: constants, then goals."""
    parts = {name: rows for name, rows in results.items() if isinstance(rows, list)}
    yield "Open constants"
    found = decisions(parts, present)
    for decision in found:
        yield from str(decision).splitlines()
    yield ""
    yield from changes(found)
    yield ""
    yield "Goals"
    yield from goals(completed(with_shares(in_order(parts))))


def goals(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """Each goal with its verdict, and beneath it the cells that miss it, the worst first, or the worst that was
    measured; and how many were not, with a reason."""
    for target in targets.of_gpu(results):
        verdict, measured = target.verdict(), target.measured()
        if not measured:
            state = "not measured"
        elif verdict["met"] is None:
            state = f"met in {len(measured)} of {len(target.rows)} cells"
        else:
            state = "met" if verdict["met"] else "MISSED"
        yield f"{state}: {target.what} {target.sign} {target.goal:g}"
        missed = [row for row in measured if not target.holds(row[target.field])]
        for row in (missed or measured)[:WORST]:
            yield f"    {row[target.field]:.4g}{_doubt(row)}  {_place(row)}"
        if len(missed) > WORST:
            yield f"    and {len(missed) - WORST} more"
        empty = [row for row in target.rows if row.get(target.field) is None]
        for row in empty[:1]:
            more = f", and {len(empty) - 1} more" if len(empty) > 1 else ""
            yield f"    not measured: {_place(row)}{more}{': ' + row['note'] if 'note' in row else ''}"
        if missed and (command := profiled(missed[0])):
            yield f"    what it waits for: {command}"


def profiled(row: Mapping[str, Any]) -> str | None:
    """The command that reads the counters of what a row measured; None where that is no kernel's time."""
    if row.get("what") == "decode" and "requests" in row:
        return f'python -m benchmarks profile --cell "{row["cell"]}"'
    if "tokens" in row and row.get("direction"):
        return f'python -m benchmarks profile --cell "{row["cell"]}" --direction {row["direction"]}'
    return None


def present(constant: str, file: str) -> str:
    """The text of a constant as the code here has it; "unknown" where there is none."""
    for source in SOURCES:
        if (source / file).is_file():
            for node in ast.parse((source / file).read_text()).body:
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == constant:
                    return ast.unparse(node.value)
    return "unknown"


def _place(row: Mapping[str, Any]) -> str:
    named = row.get("cell") or row.get("what")
    extra = row.get("direction") or (row.get("what") if row.get("cell") == "host" else None)
    return f"{named}, {extra}" if extra else str(named)


def _doubt(row: Mapping[str, Any]) -> str:
    """The spread of the repeats that a figure comes from."""
    found = row.get("graph_spread", row.get("spread"))
    return f" ± {100 * found:.1f} %" if found is not None else ""
