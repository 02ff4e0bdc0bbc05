"""The overview: every head in the kind that its layout says, with the density that the definition counts."""

from __future__ import annotations

import io
import itertools
import re
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout
from patterncc.pictures import show_terminal
from patterncc.pictures.figure import figure
from patterncc.pictures.overview import MOST, overview, words
from patterncc.pictures.pair import pair_figure
from patterncc.pictures.palette import FIELD, NIGHT_FIELD
from patterncc.pictures.svg import svg
from tests.pictures.made import everything, one_layer
from tests.pictures.sight import BLINDNESS, SVG, lab, linear
from tests.witness import kept_tokens

NEAR, FAR, OTHER, ALL = map(Layout.parse, ("d<2", "d<2 | j%4==0", "d<2 | j%4==3", "all"))


def layered(layers: int = 3, heads: int = 4) -> Classes:
    """A dense layer, then layers with local heads, strided ones with two offsets, and a last dense head."""
    mixed = (*(0 for _ in range(heads - 3)), 1, 2, 3)
    return Classes(
        "layered", 16, True, 64, heads, 1, (NEAR, FAR, OTHER, ALL), ((3,) * heads,) + (mixed,) * (layers - 1)
    )


def shown(*patterns: Classes, colour: bool = False, width: int = 80, **choice) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    system = "truecolor" if colour else None
    console = Console(file=file, force_terminal=colour, color_system=system, width=width, _environ={})
    show_terminal(*patterns, console=console, **choice)
    file.seek(0)
    return file.read()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("length", [97, 320])
@pytest.mark.parametrize("causal", [True, False])
def test_densities_are_those_of_the_definition(length: int, causal: bool) -> None:
    texts = ("d<3 | j<1 | random 2 seed 3 | sink 20 tokens", "d<2 | j%4==1", "d<2 | j%4==2", "all", "chunk 2")
    classes = one_layer(*texts, causal=causal)
    found = overview(classes, length=length)
    whole = np.tril(np.ones((length, length))).sum() if causal else length**2
    for head, kind in enumerate(found.cells[0][0]):
        kept = kept_tokens(classes.layouts[head], length, causal=causal, block=16).sum() / whole
        assert found.kinds[kind].least <= kept + 1e-12 and kept - 1e-12 <= found.kinds[kind].most
    every = [kept_tokens(layout, length, causal=causal, block=16).sum() / whole for layout in classes.layouts]
    assert found.densities(classes) == pytest.approx([np.mean(every)])
    assert [kind.most for kind in found.kinds] == sorted((kind.most for kind in found.kinds), reverse=True)


def test_a_kind_is_a_layout_but_for_offsets() -> None:
    found = overview(layered(), length=1600)
    assert [(kind.letter, kind.rule, kind.count) for kind in found.kinds] == [
        ("A", "all", 6), ("B", "d<2 | j%4==*", 4), ("C", "d<2", 2),
    ]  # fmt: skip
    assert found.cells == (((0, 0, 0, 0), (2, 1, 1, 0), (2, 1, 1, 0)),)
    assert [kind.where for kind in found.kinds] == [
        "every layer, not the same heads", "layers 1, 2, heads 1, 2", "layers 1, 2, head 0",
    ]  # fmt: skip


def test_a_layer_a_line() -> None:
    assert shown(layered(), overview=True, length=1600) == (
        "layered  4 heads on 1 KV head, 3 layers, blocks of 16 tokens, causal\n"
        "\n"
        "layer 0 1 2 3     kept\n"
        "    0 A A A A   100.0%\n"
        "    1 C B B A    39.4%\n"
        "    2 C B B A    39.4%\n"
        "\n"
        "a head of each kind keeps, at 1,600 tokens:\n"
        " A  dense               100.0%  6 heads  all  (every layer, not the same heads)\n"
        " B  local + stride  26.5-28.0%  4 heads  d<2 | j%4==*  (layers 1, 2, heads 1, 2)\n"
        " C  local                 3.0%  2 heads  d<2  (layers 1, 2, head 0)\n"
    )


@pytest.mark.parametrize("colour", [False, True])
def test_32_layers_of_32_heads_fit_80_columns(colour: bool) -> None:
    classes = layered(32, 32)
    lines = plain(shown(classes, colour=colour, overview=True)).splitlines()
    assert all(cell_len(line) <= 80 for line in lines)
    found = overview(classes)
    cells = [line[6:70].split() for line in lines[3:35]]
    assert cells == [[found.kinds[kind].letter for kind in line] for line in found.cells[0]]


@pytest.mark.parametrize(("layers", "heads"), [(80, 8), (33, 130), (1, 200), (126, 128)])
def test_large_models_fit_too(layers: int, heads: int) -> None:
    lines = shown(layered(layers, heads), overview=True).splitlines()
    assert all(cell_len(line) <= 80 for line in lines) and len(lines) < 45
    assert ("a letter stands for" in "\n".join(lines)) == (heads > 66)


@settings(max_examples=25, deadline=None)
@given(st.integers(30, 200), st.booleans(), st.integers(1, 40), st.integers(3, 140), st.booleans())
def test_lines_fit_any_width(width: int, colour: bool, layers: int, heads: int, two: bool) -> None:
    patterns = [layered(layers, heads), everything()][: 1 + two]
    text = plain(shown(*patterns, colour=colour, width=width, overview=True))
    assert all(cell_len(line) <= width for line in text.splitlines()[1:])


def test_many_kinds_are_gathered_and_all_explained() -> None:
    classes = one_layer(*(f"d<{k} | j%{2 * k}==1" for k in range(2, 80)))
    found = overview(classes)
    assert len(found.kinds) <= MOST
    text = shown(classes, overview=True)
    grid, key = text.split("a head of each kind")
    letters = set(re.findall(r"^    0 ([A-Za-z]+)", grid, re.M)[0])
    assert letters <= {line.split()[0] for line in key.splitlines()[1:]}
    assert {words(layout) for layout in classes.layouts} <= {kind.parts for kind in found.kinds}


@pytest.mark.parametrize("width", [60, 80])
def test_long_rules_are_wrapped_not_cut(width: int) -> None:
    classes = one_layer("d<3 | 12<=d<14 | j<1 | window 777,1 tokens | sink 20 tokens | random 2 seed 3", "d<2")
    said = " ".join(shown(classes, width=width, overview=True).split())
    assert "d<3 | 12<=d<14 | j<1 | window 777,1 tokens | sink 20 tokens | random 2 seed 3" in said


def test_colours_of_the_terminal_are_in_its_legend() -> None:
    grid, key = shown(layered(), colour=True, overview=True).split("a head of each kind")
    painted = set(re.findall(r"48;2;(\d+;\d+;\d+)", grid))
    assert len(painted) == 3 and painted == set(re.findall(r"48;2;(\d+;\d+;\d+)", key))


def test_a_pattern_of_one_kind_needs_no_map() -> None:
    text = shown(one_layer("d<2 | j%4==0", "d<2 | j%4==1"), rows=8)
    assert "each kind" not in text and "not kept" in text
    assert "each kind" in shown(layered(), rows=8)


@pytest.mark.parametrize(("layers", "heads"), [(3, 4), (32, 32), (48, 64), (2, 128)])
def test_the_picture_has_a_cell_for_every_head(layers: int, heads: int) -> None:
    """The area that each kind's colour takes up in the grid is its share of the heads."""
    classes = layered(layers, heads)
    found = overview(classes)
    root = ElementTree.fromstring(svg(figure(classes, overview=True)))
    area: Counter[str] = Counter()
    for box in root.findall(f"{SVG}rect"):
        if box.get("rx") is None:
            area[str(box.get("fill"))] += float(box.attrib["width"]) * float(box.attrib["height"])
    whole = sum(area[kind.colour()] for kind in found.kinds)
    for kind in found.kinds:  # coordinates have two decimals
        assert area[kind.colour()] / whole == pytest.approx(kind.count / (layers * heads), abs=0.01), kind
    texts = [str(text.text) for text in root.iter(f"{SVG}text")]
    assert all(kind.letter in texts and any(kind.density in text for text in texts) for kind in found.kinds)
    for text in root.iter(f"{SVG}text"):
        assert 0 < float(text.attrib["x"]) < float(root.attrib["width"]), text.text
        assert 0 < float(text.attrib["y"]) < float(root.attrib["height"]), text.text


def test_two_patterns_share_kinds_and_show_the_same_tokens() -> None:
    small, large = one_layer("d<2", "all", name="small"), one_layer("d<2 | j<1", "all", name="large", block=64)
    found = overview(small, large)
    assert found.cells == (((2, 0),), ((3, 1),)) or [kind.letter for kind in found.kinds] == list("ABCD")
    text = shown(small, large, rows=32)
    assert "first 512 tokens: 32 rows" in text and "first 512 tokens: 8 rows" in text
    assert all(cell_len(line) <= 80 for line in text.splitlines())
    same = overview(small, one_layer("d<2", name="again"))
    assert same.cells[1] == ((same.cells[0][0][0],),), "equal layouts of two patterns have one letter"


@pytest.mark.parametrize("choice", [{}, {"layer": 0}, {"head": 1}, {"union": True}, {"only_kinds": True}])
def test_the_picture_of_two(choice: dict) -> None:
    root = ElementTree.fromstring(svg(pair_figure(layered(), everything(), **choice)))
    texts = list(root.iter(f"{SVG}text"))
    assert {"layered", "everything"} <= {text.text for text in texts}
    for text in texts:
        assert 0 < float(text.attrib["x"]) < float(root.attrib["width"]), text.text
        assert 0 < float(text.attrib["y"]) < float(root.attrib["height"]), text.text


@pytest.mark.parametrize("field", [FIELD, NIGHT_FIELD])
@pytest.mark.parametrize("blindness", BLINDNESS)
def test_kinds_of_one_hue_stay_apart(blindness: str, field: str) -> None:
    """Four densities of one hue, of every hue in use: neighbours differ by 6 in L*a*b* (2 to 3 is just visible)."""
    forms = ("j%{}==0", "d<{}", "chunk {}", "j<{}", "random {} seed 1")
    for form in forms:
        found = overview(one_layer(*(form.format(3 * k) for k in range(1, 5))), length=1600)
        colours = [kind.colour(field) for kind in found.kinds] + [field]
        assert len(set(colours)) == 5
        seen = [lab(np.clip(np.array(BLINDNESS[blindness]) @ linear(colour), 0, 1)) for colour in colours]
        for a, b in itertools.pairwise(seen):
            assert np.linalg.norm(a - b) > 6, (form, colours)
