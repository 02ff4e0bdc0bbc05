"""`patterncc verify`: proofs for every length, and the compiled package against the definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from patterncc.analysis.explain.report import Report, junit, markdown
from patterncc.analysis.verdict import Verdict
from patterncc.analysis.verify import PROPERTIES as PROVED
from patterncc.analysis.verify import failed
from patterncc.analysis.verify import verify as prove
from patterncc.cli import output
from patterncc.cli.compile import one_of
from patterncc.cli.table import tokens
from patterncc.errors import PatternError
from patterncc.files import replace
from patterncc.language import load
from patterncc.passes import lower
from patterncc.runtime.gallery import find, shipped

PROPERTIES = tuple(dict.fromkeys([*PROVED[:-2], "promises", "kernels", "all"]))


def run(
    property: str, patterns: list[str], json: bool, xml: Path | None, summary: Path | None, length: str = "128k"
) -> int:
    """The verdicts on each pattern; 1 when one decides against its pattern, 2 when a file is wrong."""
    one_of("PROPERTY", property, PROPERTIES)
    reports: list[Report] = []
    wrong = False
    for name in patterns or list(shipped()):
        try:
            output.progress(f"verifying {property} of {name}")
            report = verified(name, property, tokens(length))
        except PatternError as error:
            output.progress("")
            output.error(error)
            wrong = True
            continue
        output.progress("")
        reports.append(report)
        if not json:
            tell(report)
    if json and reports:
        documents = [document(report) for report in reports]
        output.document(documents[0] if len(patterns) == 1 else documents)
    for path, written in ((xml, junit), (summary, markdown)):
        if path is not None:
            replace(path, written(reports).encode())
    return 2 if wrong else int(any(report.failed for report in reports))


def verified(name: str, property: str, length: int) -> Report:
    """The verdicts on one pattern, and for those that decide against it an explanation, with prices at a length."""
    pattern = load(find(name))
    classes = lower(pattern)
    if property == "kernels":
        from patterncc.runtime.check import check_kernels

        verdicts = check_kernels(pattern, classes)
        return Report(pattern.name, verdicts, tuple(v for v in verdicts if v.holds is not True), asked=property)
    if property != "coverage":  # which arithmetic decides in most patterns
        import numpy  # noqa: F401  # pyright: ignore[reportUnusedImport] # before a proof begins: its time is no proof's
    verdicts = prove(classes, property, promises=pattern.promises)
    bad = failed(verdicts, property, pattern.promises)
    told: tuple[str, ...] = ()
    if bad:
        from patterncc.analysis.explain.explain import explanations

        told = explanations(classes, bad, pattern, length)
    if property == "kv":
        from patterncc.analysis.explain.paged import paged_explanations

        told += paged_explanations(classes, length)
    return Report(pattern.name, verdicts, bad, told, property, pattern.promises)


def document(report: Report) -> dict[str, Any]:
    return {"name": report.name, "results": [verdict.to_json() for verdict in report.verdicts]}


def tell(report: Report) -> None:
    """Print the report as one table."""
    print(output.paint(report.name, output.BOLD))
    header = ("property", "scope", "layers", "verdict", "ms", "witness or proof")
    rows = []
    for line, verdict in zip(report.lines(), report.verdicts, strict=True):
        text = "; ".join(filter(None, [line.witness, line.note or verdict.proof]))
        rows.append((line.property, line.scope, line.layers, line.verdict, f"{line.seconds * 1e3:.1f}", text))
    output.columns(rows, header=header, right=["ms"], indent=2)
    for text in report.explanations:
        print(f"  {text}")
    if report.asked == "all":
        print(f"  {report.summary}")


__all__ = ["PROPERTIES", "Verdict", "run"]
