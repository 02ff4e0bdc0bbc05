"""How mistakes look: widths, cuts, control characters, colour; what is light to import."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patterncc.errors import Diagnostic, PatternError, Span, UsageError, clean, did_you_mean


def test_the_form() -> None:
    """The example of the design, character for character."""
    mistake = Diagnostic(
        "offset 9 must be below the stride, 8", "patterns/phi3.yaml", Span(9, 13, 14),
        "offsets are taken modulo the stride; did you mean 1?", "    offset: 9",
    )  # fmt: skip
    assert mistake.render() == (
        "patterns/phi3.yaml:9:13: offset 9 must be below the stride, 8\n"
        "  9 |     offset: 9\n"
        "    |             ^\n"
        "  help: offsets are taken modulo the stride; did you mean 1?"
    )


@pytest.mark.parametrize(
    ("line", "column", "end", "shown", "mark"),
    [
        ("a: b", 4, 5, "a: b", "   ^"),
        ("\ta: b", 5, 6, "    a: b", "       ^"),
        ("全体: b", 5, 6, "全体: b", "      ^"),
        ("x: 全体", 4, 6, "x: 全体", "   ^^^^"),
        ("e\u0301: b", 5, 6, "e\u0301: b", "   ^"),
        ("a: \x1b[2J", 4, 5, "a: \ufffd[2J", "   ^"),
        ("a: \u202eb", 4, 5, "a: \ufffdb", "   ^"),
        ("a:", 3, 4, "a:", "  ^"),
        ("", 1, 2, "", "^"),
    ],
)
def test_the_mark_stands_below_what_it_marks(line: str, column: int, end: int, shown: str, mark: str) -> None:
    lines = Diagnostic("m", "f", Span(1, column, end), None, line).render().split("\n")
    assert lines[1:] == [f"  1 | {shown}".rstrip(), f"    | {mark}"]


@given(st.text(max_size=400), st.integers(0, 420), st.integers(1, 420))
def test_any_line_can_be_shown(line: str, start: int, length: int) -> None:
    words = Diagnostic("m", "f", Span(7, start + 1, start + 1 + length), "h", line).render()
    assert len(words.split("\n")) == 4
    assert not any(character in words.replace("\n", "") for character in "\x1b\x00\r\x07\u2028\u202e")


def test_long_lines_are_cut_around_the_mark() -> None:
    line = "".join(f"{n:04}" for n in range(250_000))
    for column in (1, 60, 90, 500_000, 999_990):
        shown, mark = Diagnostic("m", "f", Span(1, column, column + 4), None, line).render().split("\n")[1:3]
        assert len(shown) < 120
        at = mark.index("^")
        assert shown[at : at + 4] == line[column - 1 : column + 3]


def test_many_mistakes_are_counted() -> None:
    error = PatternError(Diagnostic(f"m{n}", "f", Span(n, 1, 2)) for n in range(200, 0, -1))
    words = str(error)
    assert words.startswith("f:1:1: m1\n") and words.endswith("and 150 more mistakes")
    assert len(error.diagnostics) == 200


def test_colour_adds_nothing_but_colour() -> None:
    import re

    error = PatternError([Diagnostic("m", "f", Span(2, 3, 5), "h", "a: bcd"), Diagnostic("n")])
    assert re.sub("\x1b\\[[0-9]*m", "", error.render(color=True)) == error.render()
    assert "\x1b" not in error.render()


def test_errors_can_be_copied_and_sent() -> None:
    for error in (PatternError([Diagnostic("m", "f", Span(1, 2, 3), "h", "line")]), UsageError("wrong", "right")):
        for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert type(other) is type(error) and other.diagnostics == error.diagnostics
    assert UsageError("no such layer", "layers are 0-3").render() == "no such layer\n  help: layers are 0-3"


def test_words() -> None:
    assert did_you_mean("OFSET", ["offset", "stride"]) == "offset"
    assert did_you_mean("colour", ["offset", "stride"]) is None
    assert did_you_mean("x" * 10**6, ["offset"]) is None
    assert clean("tab\tbell\x07") == "tab\\tbell\\x07"


def test_errors_and_spec_are_light() -> None:
    script = (
        "import sys, patterncc.errors, patterncc.language\n"
        "print([m for m in ('yaml', 'pydantic', 'numpy', 'torch', 'triton') if m in sys.modules])\n"
        "patterncc.language.schema()\n"
        "print([m for m in ('numpy', 'torch', 'triton') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]
