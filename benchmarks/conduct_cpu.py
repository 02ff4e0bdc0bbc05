"""The CPU suite from beginning to end: its parts in order, and what becomes of one that fails."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

PARTS = ("startup", "lowering", "proofs", "decoding", "loops", "attention")  # what takes longest comes last

Row = Mapping[str, Any]
Measured = Iterator[tuple[str, Row]]  # each row with the part that it belongs to


def measure(chosen: tuple[str, ...], deadline: float) -> Measured:
    """All rows of the chosen parts, each with its part, as they come. A part that fails gives a row of `failures`,
    and the others are measured all the same."""
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            if part in chosen:
                yield from _guarded(part, lambda part=part: MEASURES[part](Path(folder), deadline))


def _guarded(part: str, rows: Callable[[], Measured]) -> Measured:
    try:
        yield from rows()
    except Exception as error:
        first_line = next(iter(str(error).strip().splitlines()), "")
        yield "failures", {"cell": part, "note": f"{type(error).__name__}: {first_line[:300]}"}


def _startup(folder: Path, deadline: float) -> Measured:
    from benchmarks import startup

    yield from (("startup", row) for row in startup.run())
    yield from (("imports", row) for row in startup.imports())


def _lowering(folder: Path, deadline: float) -> Measured:
    from benchmarks import growth, lowering

    rows = []
    for row in lowering.run():
        rows.append(row)
        yield "lowering", row
    yield from (("growth", law) for law in growth.growth(rows))


def _proofs(folder: Path, deadline: float) -> Measured:
    from benchmarks import proofs

    yield from (("proofs", row) for row in proofs.run())
    yield from (("gallery", row) for row in proofs.gallery())


def _decoding(folder: Path, deadline: float) -> Measured:
    from benchmarks import decoding_cpu

    yield from (("decoding", row) for row in decoding_cpu.run(folder))


def _loops(folder: Path, deadline: float) -> Measured:
    from benchmarks import loops

    yield from (("loops", row) for row in loops.run(folder))


def _attention(folder: Path, deadline: float) -> Measured:
    from benchmarks import attention_cpu

    for backward in (False, True):
        rows = attention_cpu.run(folder, backward=backward, deadline=deadline)
        yield from (("attention", row) for row in rows)


MEASURES: Mapping[str, Callable[[Path, float], Measured]] = {
    "startup": _startup,
    "lowering": _lowering,
    "proofs": _proofs,
    "decoding": _decoding,
    "loops": _loops,
    "attention": _attention,
}
