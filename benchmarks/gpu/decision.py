"""A decision: an open constant, its present value, the value that the cells support, and how sure that is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.gpu.ratios import Judged

Rows = Sequence[Mapping[str, Any]]
MISSING = "not measured"
BROKEN = ("WRONG", "the process ended with", "hung or ended its process", "CUDA error")  # in the note of a cell


@dataclass(frozen=True)
class Decision:
    """A constant, its present value, what the measurement supports, how sure that is, and why; where it becomes
    another, the line of `codegen_templates`, with its file."""

    about: str
    now: str
    becomes: str
    sure: str
    because: tuple[str, ...] = ()
    line: str = ""

    def __str__(self) -> str:
        lines = [f"{self.about}, now {self.now}: {self.becomes} ({self.sure})"]
        return "\n".join([*lines, *(f"    {line}" for line in self.because)])


@dataclass(frozen=True)
class Empty:
    """Cells without figures that a constant waits for, with their notes."""

    cells: tuple[str, ...]
    notes: Mapping[str, str]

    @property
    def broken(self) -> tuple[str, ...]:
        """Those whose kernels were wrong, hung, or ended their process: what they take is to be off."""
        return tuple(cell for cell in self.cells if any(word in self.notes.get(cell, "") for word in BROKEN))

    def said(self) -> Iterator[str]:
        for cell in self.cells:
            yield f"{MISSING}: {cell}{': ' + self.notes[cell] if cell in self.notes else ''}"


def empty(wanted: Collection[str], rows: Rows, notes: Mapping[str, str]) -> Empty:
    """The wanted cells that have no row in the results, with the notes that say why."""
    measured = {row.get("cell") for row in rows}
    return Empty(tuple(cell for cell in wanted if cell not in measured), notes)


def held(decision: Decision, lacks: Empty, off: str) -> Decision:
    """The decision less sure, where some of its cells have no figures; or that what it is about is to be off (`off`
    says so in words), where it is broken in one."""
    because = (*decision.because, *lacks.said())
    if lacks.broken:
        return replace(decision, becomes=off, sure="sure", because=because, line="")
    sure = "likely" if decision.sure == "sure" and lacks.cells else decision.sure
    return replace(decision, sure=sure, because=because)


def missing(about: str, now: str, lacks: Empty, off: str = "stays") -> Decision:
    """Of which no cell was measured."""
    found = Decision(about, now, "stays", MISSING, (f"it waits for: {'; '.join(lacks.cells) or 'no cell'}",))
    if lacks.broken:
        return held(replace(found, because=()), lacks, off)
    return replace(
        found, because=(*found.because, *(f"{x}: {lacks.notes[x]}" for x in lacks.cells if x in lacks.notes))
    )


def faster(found: Judged, what: str) -> str:
    """The geometric mean in words."""
    said = f"{what} is {found.mean:.3f} times as fast by the geometric mean"
    return said if found.sign else f"neither is faster: {said}"


def changes(found: Sequence[Decision]) -> Iterator[str]:
    """Lines of `codegen_templates` as they are to be: what is sure, then what is to be looked at before."""
    for sure, title in (("sure", "To be changed in codegen_templates"), ("likely", "To be looked at, likely")):
        lines = dict.fromkeys(each.line for each in found if each.line and each.sure == sure)
        yield title + ("" if lines else ": nothing")
        for line in lines:
            yield from (f"    {part}" for part in line.splitlines())
