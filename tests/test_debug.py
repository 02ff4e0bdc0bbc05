"""PATTERNCC_DEBUG: what it prints, that it knows its values, that a broken pass is named whether it is set or not."""

from __future__ import annotations

import pytest

from patterncc.debug import LONGEST, VALUES, debugging, traced
from patterncc.errors import UsageError
from patterncc.ir.check import BrokenIR
from patterncc.ir.layout import Layout
from patterncc.ir.table import Table
from patterncc.language import loads
from patterncc.passes.lower_table import lower_table
from patterncc.passes.resolve_heads import resolve_heads

SIZES = {"causal": True, "block": 64, "rows": 3, "columns": 3}


def test_silent_by_default(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("PATTERNCC_DEBUG", raising=False)
    lower_table(Layout.parse("d<2"), **SIZES)
    assert capsys.readouterr() == ("", "")


def test_dumps_on_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATTERNCC_DEBUG", "passes, time")
    lower_table(Layout.parse("d<2"), **SIZES)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lower_table: ")
    assert err.endswith("ms\n--- lower_table\n0: 0\n1: 0 1\n2: 1 2\n")


def test_long_dumps_are_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATTERNCC_DEBUG", "passes")
    lower_table(Layout.parse("d<2"), causal=True, block=64, rows=500, columns=500)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == LONGEST + 2
    assert lines[-1] == f"... and {500 - LONGEST} more lines"


def test_the_layouts_of_many_heads_and_layers_are_a_few_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATTERNCC_DEBUG", "passes")
    resolve_heads(
        loads("pattern: 1\nname: many\nheads: 128\nlayers: 96\nblock: 64\nshards: [{heads: all, local: 2}]\n")
    )
    assert capsys.readouterr().err == "--- resolve_heads\nlayout 0: d<2\nlayers 0-95: 0*128\n"


def test_unknown_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATTERNCC_DEBUG", "pases")
    with pytest.raises(UsageError, match="did you mean passes"):
        debugging("passes")
    monkeypatch.setenv("PATTERNCC_DEBUG", "everything")
    with pytest.raises(UsageError, match="print what every pass gives"):
        debugging("passes")
    with pytest.raises(KeyError):
        debugging("not in the table")


def test_a_broken_pass_is_named() -> None:
    @traced
    def lower_wrongly() -> Table:
        return Table.of([[3, 1]])

    with pytest.raises(BrokenIR, match=r"after lower_wrongly: columns of a row do not rise\n0: 3 1"):
        lower_wrongly()


def test_every_value_says_what_it_does() -> None:
    assert all(len(meaning) > 10 for meaning in VALUES.values())
