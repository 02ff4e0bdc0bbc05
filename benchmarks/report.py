"""Results as JSON, as pictures, and as the table in the README: nothing here measures anything."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"


def save(
    suite: str, machine: Mapping[str, object], results: Mapping[str, Sequence[object]], targets: Sequence[object]
) -> Path:
    """One JSON file a suite: machine, targets, rows."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{suite}.json"
    document = {"machine": machine, "targets": targets, **results}
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def saved(suite: str) -> dict[str, Any] | None:
    """What was measured, or None where nothing was."""
    path = RESULTS / f"{suite}.json"
    return json.loads(path.read_text()) if path.exists() else None


def plot(suite: str) -> Path | None:
    """Speed-up over dense against length, one line a pattern, dtype and direction; None without matplotlib or rows."""
    document = saved(suite) or {}
    rows = [row for row in document.get("attention", ()) if row.get("speedup")]
    try:
        import matplotlib
    except ImportError:
        return None
    if not rows:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = sorted(
        {(row["direction"], row["dtype"]) for row in rows}, key=lambda p: (p[0] != "forward", p[1] != "fp32")
    )
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.6), squeeze=False)
    for (direction, dtype), axis in zip(panels, axes[0], strict=True):
        lines: dict[str, list[tuple[int, float, float]]] = {}
        for row in rows:
            if (row["direction"], row["dtype"]) == (direction, dtype):
                name = f"local {row['local']}, stride {row['stride']}"
                lines.setdefault(name, []).append((row["tokens"], row["speedup"], 1 / row["density"]))
        for number, (name, points) in enumerate(sorted(lines.items())):
            points.sort()
            axis.plot([p[0] for p in points], [p[1] for p in points], "o-", color=f"C{number}", label=name)
            axis.plot([p[0] for p in points], [p[2] for p in points], ":", color=f"C{number}", alpha=0.6)
        axis.axhline(1, color="0.7", linewidth=0.8)
        axis.set(xscale="log", yscale="log", xlabel="tokens", title=f"{direction}, {dtype}")
        axis.set_xticks(sorted({row["tokens"] for row in rows}))
        axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1024:g}k")
        axis.minorticks_off()
        axis.yaxis.set_major_formatter(lambda y, _: f"{y:g}x")
    axes[0][0].set_ylabel("times as fast as dense (dotted: 1 / density)")
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    path = RESULTS / f"{suite}.png"
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path


def fill_readme() -> None:
    """Put what was measured between the README's markers; what was not measured is an empty cell."""
    text = README.read_text()
    for suite in ("cpu", "gpu"):
        pattern = re.compile(rf"(<!-- benchmarks {suite} -->\n).*?(<!-- end -->)", re.S)
        text = pattern.sub(lambda found, suite=suite: found[1] + table(suite) + found[2], text)
    README.write_text(text)


def table(suite: str) -> str:
    """The targets of a suite as a Markdown table, below a line that says what they were measured on."""
    from benchmarks import targets

    document = saved(suite)
    rows = document["targets"] if document else getattr(targets, suite)({})
    lines = ["", "| target | goal | measured | |", "| --- | --- | --- | --- |"]
    for row in rows:
        value = "" if row["value"] is None else f"{row['value']:.3g}"
        verdict = {None: "", True: "met", False: "not met"}[row["met"]]
        lines.append(f"| {row['target']} | {row['goal']} | {value} | {verdict} |")
    if document:
        machine = document["machine"]
        where = machine.get("accelerator") or f"{machine['processor']}, {machine['cores']} cores"
        lines.append(f"\nMeasured on {where}; torch {machine['torch']}, triton {machine['triton']}.")
    return "\n".join([*lines, "", ""])
