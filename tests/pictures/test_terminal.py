"""What `show` prints: plain where there is no colour, never wider than the terminal, true to the layout."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from patterncc.errors import UsageError
from patterncc.pictures import show_terminal
from tests.pictures.made import everything, one_layer


def shown(classes, *, colour: bool = False, width: int = 80, **choice) -> str:
    system = "truecolor" if colour else None
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    console = Console(file=file, force_terminal=colour, color_system=system, width=width, _environ={})
    show_terminal(classes, console=console, **choice)
    file.seek(0)
    return file.read()


def test_a_head() -> None:
    assert shown(one_layer("d<1 | j%4==1 | sink 4 tokens", name="demo"), head=0, rows=6) == (
        "demo  1 head, blocks of 16 tokens, causal\n"
        "first 6 rows (down) and columns (across): 96 tokens\n"
        "\n"
        "head 0\n"
        "46.4% kept\n"
        "# local   d<1\n"
        "| stride  j%4==1\n"
        "+ sink    sink 4 tokens\n"
        "#\n"
        "+ #\n"
        "+ | #\n"
        "+ | . #\n"
        "+ | . . #\n"
        "+ | . . . #\n"
        "\n"
        "# local   | stride   + kept in part   . not kept\n"
    )


def test_classes_stand_side_by_side() -> None:
    text = shown(one_layer("d<1", "d<2 | j%4==1", name="demo"), rows=4)
    assert "head 0                     head 1" in text
    assert "...#                       .|##" in text


def test_union_counts_heads() -> None:
    lines = shown(one_layer(*(f"d<1 | j%4=={r}" for r in range(3)), name="demo"), union=True, rows=6).splitlines()
    assert "no head keeps 2 of 21" in lines
    assert lines[-7:] == ["1 3", "1 1 3", "1 1 1 3", "1 1 1 . 3", "1 1 1 . 1 3", "", lines[-1]]
    assert lines[-1] == "heads that keep a block:  . none  1 1  3 3"


@pytest.mark.parametrize("colour", [False, True])
def test_the_legend_names_the_fewest_heads(colour: bool) -> None:
    """Of thirteen counts a few are named: none, one and all among them, which are the ends of the colours."""
    classes = one_layer(*(f"d<1 | {r}<=d<{2 * r + 1}" for r in range(1, 13)), name="demo")
    text = shown(classes, union=True, rows=30, width=120, colour=colour)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()[-1]
    named = re.findall(r" (none|[0-9]+)(?=  |$)", plain)
    assert named[:2] == ["none", "1"] and named[-1] == "12" and len(named) <= 8


def test_the_legend_has_every_colour() -> None:
    """A sink that keeps blocks in part is drawn in its own colour, not in the window's."""
    classes = one_layer("d<1 | window 40,1 tokens | sink 4 tokens", name="demo")
    text = shown(classes, colour=True, rows=6)
    colours = set(re.findall(r"[34]8;2;([0-9;]+)m", text))
    legend = text.splitlines()[-1]
    drawn = {found for line in text.splitlines()[3:-2] for found in re.findall(r"[34]8;2;(\d+;\d+;\d+)", line)}
    assert drawn <= {*re.findall(r"38;2;(\d+;\d+;\d+)", legend), "20;24;31"}, colours  # and the paper
    assert "local, in part" in re.sub(r"\x1b\[[0-9;]*m", "", legend)


def test_colour_paints_two_blocks_a_character() -> None:
    text = shown(one_layer("d<1"), colour=True, rows=4)
    blocks = [line for line in text.splitlines() if "▀" in line]
    assert len(blocks) == 2 and all(line.count("▀") == 4 for line in blocks)
    assert "38;2;68;119;170" in blocks[0], "the first block of the diagonal has the colour of `local`"


@pytest.mark.parametrize("colour", [False, True])
def test_no_colour_means_plain_ascii(colour: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    environment = {"NO_COLOR": "1"} if colour else {"TERM": "dumb"}
    console = Console(file=file, force_terminal=colour, width=80, _environ=environment)
    show_terminal(everything(), console=console)
    text = file.getvalue()
    assert "▀" not in text and text.isascii() and "38;2" not in text


@settings(max_examples=25, deadline=None)
@given(st.integers(30, 200), st.booleans(), st.sampled_from([{}, {"head": 2}, {"union": True}]), st.integers(1, 150))
def test_lines_fit(width: int, colour: bool, choice: dict, rows: int) -> None:
    text = shown(everything(), colour=colour, width=width, rows=rows, **choice)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert all(cell_len(line) <= width for line in plain.splitlines()[3:-1])


def test_a_narrow_terminal_merges_blocks() -> None:
    lines = shown(one_layer("d<8 | j%8==0"), width=40, head=0, rows=64).splitlines()
    assert "a cell stands for 2 x 2 blocks" in lines[-1]
    assert lines[-3] == "|...|...|...|...|...|...|..#####"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"head": 4}, "everything has no head 4"),
        ({"layer": -1}, "everything has no layer -1"),
        ({"rows": 5000}, "cannot draw 5000 rows"),
    ],
)
def test_what_there_is_not(choice: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        shown(everything(), **choice)
