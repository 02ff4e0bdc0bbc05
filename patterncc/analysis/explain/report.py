"""Verdicts as one calm table a pattern: as data, as Markdown, and as JUnit XML for CI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from patterncc.analysis.geometry.missing import runs
from patterncc.analysis.verdict import Verdict
from patterncc.analysis.verify import SCOPES

SAID = {True: "holds", False: "fails", None: "undecided"}


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    property: str
    scope: str
    layers: str
    verdict: str
    witness: str
    note: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """The verdicts on one pattern; `failed` are those that decide against it (`verify.failed`)."""

    name: str
    verdicts: tuple[Verdict, ...]
    failed: tuple[Verdict, ...] = ()
    explanations: tuple[str, ...] = ()
    asked: str = "all"  # the property
    promises: Mapping[str, object] | None = None  # the file's; None: it has none of its own

    @property
    def summary(self) -> str:
        """One sentence: whether the deciding verdicts hold, and which of the others do not.

        >>> held, not_held = Verdict("rows", "head", (0,), True, ""), Verdict("coverage", "group", (0,), False, "")
        >>> Report("x", (held, not_held)).summary
        'its promises hold; 1 property that it does not promise fails: coverage (group)'
        >>> Report("x", (held, not_held), (not_held,), asked="coverage").summary
        '1 failed: coverage (group)'
        """
        failed = dict.fromkeys(_called(v) for v in self.failed)
        if failed:
            return f"{len(self.failed)} failed: {', '.join(failed)}"
        beside = {
            words: dict.fromkeys(_called(v) for v in self.verdicts if v.holds is holds)
            for words, holds in ((("fails", "fail"), False), (("is undecided", "are undecided"), None))
        }
        if not any(beside.values()):
            return "all held"
        sentences = [f"{self.asked} holds where it decides"]
        one, many = "scope that does not decide", "scopes that do not decide"
        if self.asked == "all":
            sentences = ["its promises hold" if self.promises is None or self.promises else "it promises nothing"]
            one, many = "property that it does not promise", "properties that it does not promise"
        for (verb, plural), names in beside.items():
            if names:
                told = f"1 {one} {verb}" if len(names) == 1 else f"{len(names)} {many} {plural}"
                sentences.append(f"{told}: {', '.join(names)}")
        return "; ".join(sentences)

    def lines(self) -> tuple[Line, ...]:
        """The table: property, scope, layers, verdict, witness, note, time."""
        return tuple(
            Line(
                v.property,
                v.scope,
                runs(v.layers),
                SAID[v.holds] if v.value is None else f"{SAID[v.holds]} ({v.value:g})",
                v.found,
                v.note if v.holds is not True or v.value is not None else v.proof,
                v.seconds,
            )
            for v in self.verdicts
        )


def markdown(reports: Sequence[Report]) -> str:
    """A summary for a pull request: a line a pattern, then a table for each.

    >>> print(markdown([Report("demo", (Verdict("rows", "head", (0, 1), True, "for every length"),))]))
    ## patterncc verify
    <BLANKLINE>
    - **demo**: all held
    <BLANKLINE>
    ### demo
    <BLANKLINE>
    | property | scope | layers | verdict | witness | note | ms |
    | --- | --- | --- | --- | --- | --- | ---: |
    | rows | head | 0-1 | holds |  | for every length | 0.0 |
    <BLANKLINE>
    """
    out = ["## patterncc verify", "", *(f"- **{report.name}**: {report.summary}" for report in reports)]
    for report in reports:
        out += ["", f"### {report.name}", "", "| property | scope | layers | verdict | witness | note | ms |"]
        out.append("| --- | --- | --- | --- | --- | --- | ---: |")
        for line in report.lines():
            cells = (line.property, line.scope, line.layers, line.verdict, line.witness, line.note)
            texts = (cell.replace("|", "\\|") for cell in cells)
            out.append(f"| {' | '.join(texts)} | {line.seconds * 1e3:.1f} |")
        out += ["", *(f"> {text}" for text in report.explanations)] if report.explanations else []
    return "\n".join([*out, ""])


def junit(reports: Iterable[Report]) -> str:
    """JUnit XML with one suite a pattern and one case a verdict. Verdicts that decide against the pattern are failures.
    The others pass; those that are undecided or only informative are listed in system-out."""
    from xml.sax.saxutils import escape, quoteattr  # which imports half of the network

    suites = []
    tests = failures = 0
    for report in reports:
        bad = {id(v) for v in report.failed}
        cases = []
        for verdict, line in zip(report.verdicts, report.lines(), strict=True):
            name = quoteattr(f"{line.property} {line.scope} layers {line.layers}")
            body = f"<system-out>{_text(line)}</system-out>"
            if id(verdict) in bad:
                body = f"<failure message={quoteattr(line.witness or line.verdict)}>{_text(line)}</failure>"
            case = f'classname={quoteattr(report.name)} name={name} time="{line.seconds:.6f}"'
            cases.append(f"    <testcase {case}>{body}</testcase>")
        seconds = sum(verdict.seconds for verdict in report.verdicts)
        counts = f'tests="{len(cases)}" failures="{len(bad)}" time="{seconds:.6f}"'
        summary = f"    <system-out>{escape(report.summary)}</system-out>"
        suites += [f"  <testsuite name={quoteattr(report.name)} {counts}>", *cases, summary, "  </testsuite>"]
        tests, failures = tests + len(cases), failures + len(bad)
    head = f'<testsuites name="patterncc verify" tests="{tests}" failures="{failures}">'
    return "\n".join(['<?xml version="1.0" encoding="utf-8"?>', head, *suites, "</testsuites>", ""])


def _called(verdict: Verdict) -> str:
    return f"{verdict.property} ({verdict.scope})" if len(SCOPES.get(verdict.property, "")) > 1 else verdict.property


def _text(line: Line) -> str:
    from xml.sax.saxutils import escape

    return escape(": ".join(part for part in (line.verdict, line.witness, line.note) if part))
