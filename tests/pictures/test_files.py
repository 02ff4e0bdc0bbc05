"""Picture files: read back by readers of their own, and found to say what the layouts say."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patterncc.errors import UsageError
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout
from patterncc.pictures import write
from patterncc.pictures.figure import figure, part_cells
from patterncc.pictures.html import html
from patterncc.pictures.palette import COUNTS, FIELD
from patterncc.pictures.png import png, rgb
from patterncc.pictures.scene import Cells, Scene, merged
from patterncc.pictures.svg import svg
from tests.pictures.made import everything, one_layer
from tests.pictures.sight import SVG, pixels
from tests.strategies import layouts

NASTY = "</script><script>alert(1)</script> ]]> <img src=x onerror=alert(2)> & \" ' \u2028 \u202e \x00 é ∪"


def painted(group: ElementTree.Element, rows: int) -> list[list[str | None]]:
    """The squares that a group of paths paints, pixel by pixel in their order: a small reader of SVG's path data."""
    grid: list[list[str | None]] = [[None] * rows for _ in range(rows)]
    for path in group:
        stroke, colour = path.get("stroke"), path.get("stroke") or path.get("fill")
        corners: list[tuple[float, float]] = []
        x = y = 0.0
        for command, text in re.findall(r"([MmHhVvz])([^MmHhVvz]*)", path.get("d", "")):
            numbers = [float(n) for n in re.findall(r"-?\d*\.?\d+", text)]
            if command in "Mm":
                x, y = (numbers[0], numbers[1]) if command == "M" else (x + numbers[0], y + numbers[1])
                corners = [(x, y)]
                if stroke:
                    continue
            elif command in "Hh":
                if stroke:
                    for column in range(int(x), int(x + numbers[0])):
                        grid[int(y)][column] = colour
                x = numbers[0] if command == "H" else x + numbers[0]
                corners.append((x, y))
            elif command == "v":
                y += numbers[0]
                corners.append((x, y))
            else:
                fill(grid, corners, colour)
                x, y = corners[0]
    return grid


def fill(grid: list[list[str | None]], corners: list[tuple[float, float]], colour: str | None) -> None:
    """Even-odd: a square is inside when a ray to its left crosses an odd number of upright edges."""
    edges = [(a, b) for a, b in zip(corners, [*corners[1:], corners[0]], strict=True) if a[0] == b[0]]
    for row in range(len(grid)):
        crossed = sorted(a[0] for a, b in edges if min(a[1], b[1]) < row + 0.5 < max(a[1], b[1]))
        for left, right in zip(crossed[::2], crossed[1::2], strict=True):
            for column in range(int(left), int(right)):
                grid[row][column] = colour


def scene_of(cells: Cells, size: float) -> Scene:
    scene = Scene(size, size, "t", "a")
    scene.add(cells)
    return scene


@settings(max_examples=60)
@given(layouts(), st.integers(1, 14), st.booleans())
def test_svg_paints_the_layout(layout: Layout, rows: int, causal: bool) -> None:
    classes = Classes("x", 16, causal, 64, 1, 1, (layout,), ((0,),))
    cells = part_cells(layout, classes, rows)
    for base in (FIELD, None):
        root = ElementTree.fromstring(svg(scene_of(Cells(0, 0, 1, cells, base), rows)))
        (group,) = root.findall(f"{SVG}g")
        assert painted(group, rows) == [line + [None] * (rows - len(line)) for line in cells]


@settings(max_examples=20, deadline=None)
@given(layouts(), st.integers(1, 14), st.sampled_from([2.0, 3.3, 0.5]))
def test_png_paints_the_layout(layout: Layout, rows: int, size: float) -> None:
    classes = Classes("x", 16, False, 64, 1, 1, (layout,), ((0,),))
    cells = part_cells(layout, classes, rows)
    image = pixels(png(scene_of(Cells(0, 0, size, cells, FIELD), 50)))
    assert image.shape == (100, 100, 3)
    middle = [int((k + 0.5) * round(rows * size * 2) / rows) for k in range(rows)]
    for i, line in enumerate(cells):
        assert [tuple(image[middle[i], x]) for x in middle] == [rgb(colour or "") for colour in line]


def test_squares_are_merged_into_few_boxes() -> None:
    assert merged([["a", "a", None], ["a", "a", "b"], [None, "a", "b"]]) == {
        "a": [(0, 0, 2, 2), (1, 2, 1, 1)],
        "b": [(2, 1, 1, 2)],
    }


@pytest.mark.parametrize("suffix", ["svg", "png", "html"])
@pytest.mark.parametrize("choice", [{}, {"head": 1}, {"union": True}, {"layer": 0, "rows": 33}])
def test_the_same_pattern_gives_the_same_bytes(suffix: str, choice: dict[str, int], tmp_path: Path) -> None:
    first, second = (write(everything(), tmp_path / f"{n}.{suffix}", about="why", **choice) for n in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert len(first.read_bytes()) > 2000


@pytest.mark.parametrize("choice", [{}, {"head": 1}, {"union": True}])
def test_what_people_write_stays_text_in_svg(choice: dict[str, int]) -> None:
    text = svg(figure(everything(NASTY), about=NASTY, **choice))
    root = ElementTree.fromstring(text)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg", "title", "desc", "rect", "text", "path", "g",
    }  # fmt: skip
    assert "\x00" not in text and "\u202e" not in text


class Tags(HTMLParser):
    """Collects start tags, and the text of the data block."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][1].get("id") == "data":
            self.data += data


def test_what_people_write_stays_data_in_html() -> None:
    plain, nasty = Tags(), Tags()
    plain.feed(html(everything(), rows=8, about="why"))
    nasty.feed(html(everything(NASTY), rows=8, about=NASTY))
    assert [tag for tag, _ in nasty.found] == [tag for tag, _ in plain.found]
    assert (json.loads(nasty.data)["name"], json.loads(nasty.data)["about"]) == (NASTY, NASTY)


def test_the_page_asks_for_nothing() -> None:
    page = Tags()
    page.feed(html(everything(), rows=8, about="why"))
    asked = {"src", "href", "action", "background", "data", "poster", "srcset"}
    assert not [found for found in page.found if asked & set(found[1])]
    policy = next(attributes["content"] for tag, attributes in page.found if "http-equiv" in attributes)
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")


def test_the_legend_of_a_union_has_its_lightest_and_its_darkest_colour() -> None:
    classes = one_layer(*(f"d<1 | {r}<=d<{2 * r + 1}" for r in range(1, 13)))
    drawn = svg(figure(classes, union=True, rows=30))
    assert all(f'rx="2" fill="{colour}"/>' in drawn for colour in COUNTS)
    assert ">1</text>" in drawn and ">12</text>" in drawn


@pytest.mark.parametrize(
    ("name", "help"), [("a.pgn", "did you mean .png?"), ("a", "a picture ends in .svg, .png, .html")]
)
def test_unknown_suffix(name: str, help: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        write(everything(), tmp_path / name)
    assert help in error.value.render()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write .*: no such file or directory"):
        write(everything(), tmp_path / "none" / "a.svg")


def test_many_classes_are_counted_not_crammed(tmp_path: Path) -> None:
    many = one_layer(*(f"d<2 | j%97=={k}" for k in range(97)))
    text = write(many, tmp_path / "a.svg", rows=24).read_text(encoding="utf-8")
    assert "and 65 more classes" in text
    assert len(text) < 120_000


def test_without_pillow_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UsageError, match="needs Pillow") as error:
        write(everything(), tmp_path / "a.png")
    assert "pip install 'patterncc[png]'" in error.value.render()
    assert not list(tmp_path.iterdir()) and write(everything(), tmp_path / "a.svg").exists()
