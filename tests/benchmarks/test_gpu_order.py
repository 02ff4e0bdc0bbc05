"""In which order the gpu suite measures, what it compiles before, and what it does about cells that hang."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from benchmarks.gpu import conduct
from benchmarks.gpu.cells import FAST, PARTS, Cell, cells, in_order, in_turn


def test_all_is_compiled_before_anything_is_timed() -> None:
    """Every package and every shape of a peer that a later part has; of the fast ones, what they have alone."""
    for fast in (False, True):
        chosen = {part: cells(part, fast=fast) for part in PARTS}
        assert PARTS[0] == "compiling" and all(chosen[part] or fast for part in PARTS)
        later = [cell for part in ("attention", "serving", "host", "families", "peers") for cell in chosen[part]]
        compiled = chosen["compiling"]
        packages = {cell.given["case"] for cell in compiled if cell.given.get("what") == "training"}
        assert packages == {cell.given["case"] for cell in later}
        ours = {(cell.given["case"], cell.given["what"]) for cell in compiled if "what" in cell.given}
        assert {(case, f"{what} by gluon") for case, what in ours if what in ("training", "varlen", "paged")} <= ours
        shapes = {(x.given["peer"], x.given["case"], x.given["tokens"]) for x in compiled if "peer" in x.given}
        assert shapes == {(x.given["peer"], x.given["case"], x.given["tokens"]) for x in later if "peer" in x.given}
        assert len({cell.name for cell in compiled}) == len(compiled)
    assert sum(len(chosen[part]) for part in ("attention", "serving", "host", "peers")) == 6


def test_the_most_telling_cells_of_all_parts_come_first() -> None:
    """So that whatever time runs out for, each part has its figure; and a name says of which part a cell is."""
    for toy, fast in ((True, False), (False, False), (False, True)):
        order = in_turn(PARTS, toy=toy, fast=fast)
        assert sorted(x.name for _, x in order) == sorted(
            x.name for part in PARTS[1:] for x in cells(part, toy=toy, fast=fast)
        )
        assert len({cell.name for _, cell in order}) == len(order)
    fast, whole = in_turn(PARTS, fast=True), in_turn(PARTS)
    assert whole[: len(fast)] == fast and {part for part, _ in fast} == set(FAST)
    assert {cell.name for _, cell in fast} == {name for names in FAST.values() for name in names}
    assert in_turn(["host"]) == [("host", cell) for cell in cells("host")]
    shuffled = {"host": [{"cell": "host"}], "attention": [{"cell": x.name} for x in reversed(cells("attention"))]}
    assert [row["cell"] for row in in_order(shuffled)["attention"]] == [x.name for x in cells("attention")]


CHILD = """
import json, sys, time
for part, name in json.loads(sys.argv[1])["chosen"]:
    print(json.dumps({"begun": name}), flush=True)
    if name.startswith("hangs"):
        time.sleep(600)
    print(json.dumps({"row": {"cell": name}}), flush=True)
    print(json.dumps({"done": name}), flush=True)
"""


def test_what_hangs_costs_no_more_than_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling half of the time, a cell its own; what is behind it is measured."""
    (tmp_path / "benchmarks" / "gpu").mkdir(parents=True)
    for file, text in {"__init__.py": "", "gpu/__init__.py": "", "gpu/child.py": CHILD}.items():
        (tmp_path / "benchmarks" / file).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(conduct, "COMPILED_S", 1.0)
    compiled = [Cell("compiles", 0, {}), Cell("hangs compiling", 0, {})]
    timed = [("host", Cell("hangs", 0, {})), ("attention", Cell("is well", 0, {}))]
    monkeypatch.setattr(conduct, "cells", lambda part, **_: compiled)
    monkeypatch.setattr(conduct, "in_turn", lambda *_, **__: timed)
    begin = time.monotonic()
    rows = list(conduct.run(tmp_path, toy=False, seconds=12))
    assert 6 < time.monotonic() - begin < 11  # half of the time, and a second
    assert rows[0] == ("compiling", {"cell": "compiles"}) and rows[3] == ("attention", {"cell": "is well"})
    assert rows[1][1]["note"] == "not measured: the time was over"
    assert rows[2] == (
        "host",
        {"cell": "hangs", "note": f"the process ended with {-signal.SIGKILL} while it was measured"},
    )
