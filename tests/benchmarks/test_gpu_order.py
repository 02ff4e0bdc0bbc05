"""In which order the gpu suite measures, what it compiles before, and what it does about cells that hang."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from benchmarks.gpu import conduct, steps
from benchmarks.gpu.cells import PARTS, TIMED, Cell, cells, in_order, in_turn
from benchmarks.gpu.selections import DECIDING, SELECTIONS


def test_all_is_compiled_before_anything_is_timed() -> None:
    """Every package and every shape of a peer that a later part has; of the fast ones, what they have alone."""
    for select in ("", *SELECTIONS):
        chosen = {part: cells(part, select=select) for part in PARTS}
        assert PARTS[0] == "compiling" and all(chosen[part] or select for part in PARTS)
        later = [cell for part in TIMED for cell in chosen[part]]
        compiled = chosen["compiling"]
        for what in ("training", "training by gluon"):
            packages = {cell.given["case"] for cell in compiled if cell.given.get("what") == what}
            of_one = {
                cell.given["case"] for cell in later if cell.given.get("base", cell.given["case"]) != cell.given["case"]
            }
            changed = of_one if what == "training" else set()
            assert packages | changed == {cell.given["case"] for cell in later}
        families = {(x.given["case"], x.given["family"]) for x in later if "family" in x.given}
        assert {(case, f"training by {family}") for case, family in families} <= {
            (x.given["case"], x.given.get("what")) for x in compiled
        }
        ours = {(cell.given["case"], cell.given["what"]) for cell in compiled if "what" in cell.given}
        assert {(case, f"{what} by gluon") for case, what in ours if what in ("training", "varlen", "paged")} <= ours
        shapes = {(x.given["peer"], x.given["case"], x.given["tokens"]) for x in compiled if "peer" in x.given}
        assert shapes == {(x.given["peer"], x.given["case"], x.given["tokens"]) for x in later if "peer" in x.given}
        assert len({cell.name for cell in compiled}) == len(compiled)
    assert sum(len(cells(part, select="fast")) for part in ("attention", "serving", "host", "peers")) == 6


def test_the_most_telling_cells_of_all_parts_come_first() -> None:
    """So that whatever time runs out for, each part has its figure; and a name says of which part a cell is."""
    for toy, select in ((True, ""), (True, "goals"), *((False, name) for name in ("", *SELECTIONS))):
        order = in_turn(PARTS, toy=toy, select=select)
        assert sorted(x.name for _, x in order) == sorted(
            x.name for part in PARTS[1:] for x in cells(part, toy=toy, select=select)
        )
        assert len({cell.name for _, cell in order}) == len(order)
    fast, whole = in_turn(PARTS, select="fast"), in_turn(PARTS)
    assert sorted(x.name for _, x in whole[: len(fast)]) == sorted(x.name for _, x in fast)
    deciding = {name for names in DECIDING.values() for name in names}
    named = {x.name for _, x in fast}
    assert {x.name for _, x in whole[: len(named | deciding)]} == named | deciding
    for select, chunks in SELECTIONS.items():
        order = [name for _, names in chunks for name in names]
        assert [cell.name for _, cell in in_turn(PARTS, select=select)] == order


@pytest.mark.parametrize(("select", "seconds"), [("fast", 90), ("deciding", 180), ("goals", 270)])
def test_a_selection_fits_its_time(select: str, seconds: int) -> None:
    """As reckoned, on 16 cores: the steps of a borrowed GPU have so long."""
    said = conduct.plan(cells("compiling", select=select), in_turn(PARTS, select=select), seconds, cores=16)
    assert "not reached" not in said, said
    assert in_turn(["host"]) == [("host", cell) for cell in cells("host")]
    shuffled = {"host": [{"cell": "host"}], "attention": [{"cell": x.name} for x in reversed(cells("attention"))]}
    assert [row["cell"] for row in in_order(shuffled)["attention"]] == [x.name for x in cells("attention")]


CHILD = """
import json, sys, time
given = json.loads(sys.argv[1])
for part, name in given["chosen"]:
    print(json.dumps({"begun": name}), flush=True)
    if name.startswith("hangs"):
        print(json.dumps({"doing": "a step"}), flush=True)
        time.sleep(600)
    print(json.dumps({"row": {"cell": name, "avoid": given["avoid"]}}), flush=True)
    print(json.dumps({"done": name}), flush=True)
"""


def test_what_hangs_costs_no_more_than_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell that compiles its silence, another its own time; what is behind it is measured, and knows of it."""
    (tmp_path / "benchmarks" / "gpu").mkdir(parents=True)
    for file, text in {"__init__.py": "", "gpu/__init__.py": "", "gpu/child.py": CHILD}.items():
        (tmp_path / "benchmarks" / file).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(conduct, "COMPILED_S", 1.0)
    monkeypatch.setattr(conduct, "SILENT_S", 3.0)
    compiled = [Cell("compiles", 0, {}), Cell("hangs compiling", 0, {})]
    timed = [("host", Cell("hangs", 0, {})), ("attention", Cell("is well", 0, {}))]
    monkeypatch.setattr(conduct, "cells", lambda part, **_: compiled)
    monkeypatch.setattr(conduct, "in_turn", lambda *_, **__: timed)
    begin = time.monotonic()
    rows = list(conduct.run(tmp_path, toy=False, seconds=60))
    assert 4 < time.monotonic() - begin < 20  # of silence, and one of the cell's own
    note = f"the process ended with {-signal.SIGKILL} while it was measured: a step"
    assert [row for part, row in rows if part == "plan"][1]["plan"].startswith("2 cells are timed, about 8 s; 5")
    assert [known for known in rows if known[0] != "plan"] == [
        ("compiling", {"cell": "compiles", "avoid": []}),
        ("compiling", {"cell": "hangs compiling", "note": note}),
        ("host", {"cell": "hangs", "note": note}),
        ("attention", {"cell": "is well", "avoid": ["a step"]}),
    ]


def test_a_step_that_hung_is_not_done_again() -> None:
    told: list[str] = []
    steps.listen(told.append, {"backward by gluon"})
    try:
        with steps.risky("forward by gluon"):
            pass
        with pytest.raises(steps.AvoidedError, match="backward by gluon hung"), steps.risky("backward by gluon"):
            told.append("done")
        with pytest.raises(ValueError), steps.risky("wrong"):
            raise ValueError
        with pytest.raises(RuntimeError), steps.risky("fatal"):  # stays open: the process ends of it
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
    finally:
        steps.listen(lambda _: None, set())
    assert told == ["forward by gluon", "", "wrong", "", "fatal"]
