"""Results as JSON, as one page, and as the tables in the README: nothing here measures anything."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import decide
from benchmarks.gpu.choices import decisions
from benchmarks.pages import ABOUT, PAGES

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"
SUITES = ("cpu", "gpu")
MACHINES = {"cpu": "any machine", "gpu": "a machine with a GPU; CONTRIBUTING.md says how to prepare it"}


def save(
    folder: Path,
    suite: str,
    machine: Mapping[str, object],
    results: Mapping[str, Sequence[object]],
    targets: Sequence[object],
) -> Path:
    """One JSON file a suite: machine, targets, rows. It is whole at every moment."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{suite}.json"
    document = {"machine": machine, "targets": targets, **results}
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(document, indent=1) + "\n")
    unfinished.replace(path)
    return path


def saved(suite: str, folder: Path) -> dict[str, Any] | None:
    """What was measured, or None where nothing was."""
    path = folder / f"{suite}.json"
    try:
        return json.loads(path.read_text()) if path.exists() else None
    except ValueError as error:
        sys.exit(f"{path} is not as `python -m benchmarks {suite}` wrote it: {error}")


def render(folder: Path) -> None:
    """The page and the picture of each suite that was measured; of the others, what measures them."""
    from benchmarks import figures

    for suite in SUITES:
        document = saved(suite, folder)
        if document is None:
            print(f"{suite}: nothing was measured. `python -m benchmarks {suite}` measures, on {MACHINES[suite]}.")
            continue
        picture = figures.draw(suite, document, folder / f"{suite}.png")
        path = folder / f"{suite}.md"
        path.write_text(page(suite, document, picture))
        print(path if picture else f"{path}, without a picture: that takes matplotlib (pip install '.[bench]')")
    if folder == RESULTS and README.exists():  # a prepared folder has none
        fill_readme()


def page(suite: str, document: Mapping[str, Any], picture: Path | None) -> str:
    """Everything that was measured, as Markdown: targets first, then the parts, then the cells that are empty."""
    lines = [f"# `python -m benchmarks {suite}`", "", *([document["toy"], ""] if "toy" in document else [])]
    lines += [f"{where(document['machine'])}", ""]
    if picture:
        lines += [f"![{suite}]({picture.name})", ""]
    lines += ["## Targets", "", *target_rows(document["targets"]), ""]
    if suite == "cpu":
        lines += ["A GPU's, which `python -m benchmarks gpu` measures:", "", *_gpu_targets(), ""]
    for part, columns in PAGES[suite].items():
        rows = [row for row in document.get(part.split(":")[0], ()) if "note" not in row]
        used = [name for name in columns if any(row.get(name) is not None for row in rows)]
        if used:
            about = [ABOUT[part], ""] if suite == "cpu" and part in ABOUT else []
            lines += [f"## {part.replace('_', ' ').capitalize()}", "", *about, *markdown(used, rows), ""]
    if suite == "gpu":
        parts = {part: document[part] for part in PAGES[suite] if part in document}
        measured = [each for each in decisions(parts, decide.present) if each.sure != "not measured"]
        if measured:
            lines += ["## Open constants", "", "```text", *map(str, measured), "```", ""]
    empty = [row for rows in document.values() if isinstance(rows, list) for row in rows if "note" in row]
    if empty:
        lines += ["## Empty cells", "", *(f"* {row.get('cell', row.get('what'))}: {row['note']}" for row in empty), ""]
    return "\n".join(lines)


def _gpu_targets() -> list[str]:
    from benchmarks import targets

    measured = saved("gpu", RESULTS)
    return target_rows(measured["targets"] if measured else targets.gpu({}))


def markdown(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table; what a row does not have is an empty cell."""
    head = [f"| {' | '.join(name.replace('_', ' ') for name in columns)} |", f"|{' --- |' * len(columns)}"]
    return head + [f"| {' | '.join(cell(row.get(name)) for name in columns)} |" for row in rows]


def cell(value: object) -> str:
    """A value as a reader wants it: four digits, no exponent where none is needed.

    >>> cell(0.123456), cell(1048576), cell(None), cell(12345.678), cell(3.2e-07)
    ('0.1235', '1048576', '', '12346', '3.2e-07')
    """
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def fill_readme() -> None:
    """Put what was measured between the README's markers; what was not measured is an empty cell."""
    text = README.read_text()
    for suite in SUITES:
        pattern = re.compile(rf"(<!-- benchmarks {suite} -->\n).*?(<!-- end -->)", re.S)
        text = pattern.sub(lambda found, suite=suite: found[1] + table(suite, RESULTS) + found[2], text)
    README.write_text(text)


def table(suite: str, folder: Path) -> str:
    """The targets of a suite as a Markdown table, above a line that says what they were measured on."""
    from benchmarks import targets

    document = saved(suite, folder)
    lines = ["", *target_rows(document["targets"] if document else getattr(targets, suite)({}))]
    if document:
        lines.append(f"\n{where(document['machine'])}")
    return "\n".join([*lines, "", ""])


def target_rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each target with its goal, its figure and whether it is met."""
    lines = ["| target | goal | measured | |", "| --- | --- | --- | --- |"]
    for row in rows:
        value = "" if row["value"] is None else f"{row['value']:.3g}"
        verdict = {None: "", True: "met", False: "not met"}[row["met"]]
        if row["met"] is None and row["value"] is not None:
            verdict = "of {} of {} cells".format(*row["cells"])
        lines.append(f"| {row['target']} | {row['goal']} | {value} | {verdict} |")
    return lines


def where(machine: Mapping[str, Any]) -> str:
    if not machine:
        return "Nothing was measured: the time was over before a process could say what it runs on."
    seen = machine.get("cpu_features")
    saw = "" if seen is None else f" ({', '.join(seen) or 'no vector instructions seen'})"
    place = machine.get("accelerator") or f"{machine['processor']}{saw}, {machine['cores']} cores"
    commit = f"; commit {machine['commit']}" if machine.get("commit") else ""
    return f"Measured on {place}; torch {machine['torch']}, triton {machine['triton']}{commit}."
