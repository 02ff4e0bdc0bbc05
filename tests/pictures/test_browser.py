"""The page in a real browser: its rules against the tables, its keys and pointer, its silence.

Skipped where there is no Chromium; PATTERNCC_REQUIRE_BROWSER=1 makes that a failure.
Longer than other files, so that one browser serves all tests.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from patterncc.ir.classes import Classes
from patterncc.ir.table import Table
from patterncc.language import loads
from patterncc.passes import lower
from patterncc.passes.lower_table import lower_table
from patterncc.pictures import write
from patterncc.pictures.overview import overview
from patterncc.pictures.palette import FIELD, NIGHT_FIELD, NIGHT_PAPER, PAPER, PARTS
from patterncc.pictures.png import rgb
from patterncc.pictures.view import coverage, live_tokens
from tests.pictures.browser import Browser, find
from tests.pictures.made import everything, one_layer
from tests.witness import kept_tokens, table_lists

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \" ' {{7*7}} ${7*7}"
OTHER = """
pattern: 1
name: other
heads: 8
kv_heads: 4
layers: 3
block: 16
causal: CAUSAL
shards:
  - {heads: 0-3, local: 40 tokens, stride: 5, offset: h + l}
  - {heads: 4-5, random: {blocks: 3, seed: 2147483647 - h}, globals: {rows: [2], columns: [3, 7]}}
  - heads: rest
    strides: [{every: 7, width: 3, offset: 2 * h, from: 2, to: 9}, {every: 4, anchor: query, offset: 1}]
    sink: 5 tokens
dense_layers: 2
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    binary, opened = find(), None
    reason = f"{binary} does not start" if binary else "no chromium or chrome here"
    if binary:
        with contextlib.suppress(OSError, AssertionError):
            opened = Browser(binary)
    if opened is None and os.environ.get("PATTERNCC_REQUIRE_BROWSER"):
        pytest.fail(f"PATTERNCC_REQUIRE_BROWSER is set, but: {reason}")
    if opened is None:
        pytest.skip(reason)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def silence(browser: Browser) -> Iterator[None]:
    """No test leaves a message on the console, and no page asks for anything but itself."""
    browser.problems.clear()
    browser.requests.clear()
    yield
    browser.value("1")  # what is still on its way
    assert browser.problems == []
    assert all(url.startswith(("file:", "about:")) for url in browser.requests), browser.requests


def table(browser: Browser) -> str:
    return browser.value("get('text').open = true, draw(), get('table').textContent")


@pytest.mark.parametrize(
    "classes",
    [everything(), *(lower(loads(OTHER.replace("CAUSAL", causal))) for causal in ("true", "false"))],
    ids=["every part", "causal", "both sides"],
)
def test_the_page_keeps_what_the_tables_keep(browser: Browser, classes: Classes, tmp_path: Path) -> None:
    rows, block = 29, classes.block
    browser.open(write(classes, tmp_path / "a.html"), f"head=0&length={rows * block}")
    sizes = {"causal": classes.causal, "block": block, "rows": rows, "columns": rows}
    for layer in range(classes.layers):
        for head in range(classes.heads):
            browser.value(f"choose({{layer: {layer}, head: {head}}})")
            layout = classes.layout(layer, head)
            text = table(browser)
            assert Table.parse(text) == lower_table(layout, **sizes), f"layer {layer}, head {head}: {layout}"
            tokens = kept_tokens(layout, rows * block, causal=classes.causal, block=block)
            assert Table.parse(text).tolist() == table_lists(tokens, block)
        browser.value("choose({head: ALL})")
        counts = coverage(classes, classes.of[layer], rows)
        shown = np.array(browser.value("[...grid]")).reshape(rows, rows)
        assert shown.tolist() == counts


def test_a_wrong_rule_would_be_seen(browser: Browser, tmp_path: Path) -> None:
    """Negative control: with one number of the page's data changed the tables differ."""
    classes = one_layer("d<2 | j%4==1")
    browser.open(write(classes, tmp_path / "a.html", head=0, rows=12))
    sizes = {"causal": True, "block": 16, "rows": 12, "columns": 12}
    assert Table.parse(table(browser)) == lower_table(classes.layouts[0], **sizes)
    browser.value("pattern.classes[0].parts[1].offset = 2, known.rows = 0")
    assert Table.parse(table(browser)) != lower_table(classes.layouts[0], **sizes)


def test_kept_pairs_and_live_keys(browser: Browser, tmp_path: Path) -> None:
    classes = everything()
    rows, block = 20, classes.block
    browser.open(write(classes, tmp_path / "a.html", rows=rows))
    for head, layout in enumerate(classes.layouts):
        tokens = kept_tokens(layout, rows * block, causal=True, block=block)
        pairs = tokens.reshape(rows, block, rows, block).sum(axis=(1, 3))
        cells = f"[...Array({rows * rows}).keys()].map((k) => [Math.floor(k / {rows}), k % {rows}])"
        shown = browser.value(f"{cells}.map(([i, j]) => keptPairs(pattern, {head}, i, j))")
        assert np.array(shown).reshape(rows, rows).tolist() == pairs.tolist()
        assert browser.value(f"liveTokens(pattern, [{head}], {rows})") == live_tokens([layout], rows, block)
    assert browser.value(f"liveTokens(pattern, [1, 3], {rows})") == live_tokens(
        [classes.layouts[1], classes.layouts[3]], rows, block
    )


def test_pointing_and_arrow_keys_say_why(browser: Browser, tmp_path: Path) -> None:
    browser.size(1180, 1200)
    classes = one_layer("d<2 | j%4==1 | sink 4 tokens", "all")
    browser.open(write(classes, tmp_path / "a.html", head=0, rows=16))
    words = "[get('place').textContent, get('verdict').textContent]"
    box = browser.value("(({left, top, width}) => ({left, top, width}))(get('cells').getBoundingClientRect())")
    side = box["width"] / 16
    browser.point(box["left"] + 5.5 * side, box["top"] + 9.5 * side)
    assert browser.value(words) == ["row 9, column 5", "Kept by stride"]
    assert browser.value("get('parts').rows[1].textContent") == "stridej%4==1✓ 5 mod 4 = 1"
    assert browser.value("get('parts').rows[0].textContent") == "locald<2distance 4"
    browser.value("get('cells').focus()")
    browser.press("ArrowLeft", 37)
    assert browser.value(words) == ["row 9, column 4", "Not kept"]
    for _ in range(6):
        browser.press("ArrowLeft", 37)
    assert browser.value(words) == ["row 9, column 0", "Kept in part, by sink"]
    assert "64 of 256 token pairs" in browser.value("get('row').textContent")
    for _ in range(12):
        browser.press("ArrowUp", 38)
    assert browser.value(words) == ["row 0, column 0", "Kept by local"]
    browser.press("ArrowRight", 39)
    assert browser.value(words) == ["row 0, column 1", "In the future: not kept"]
    browser.value("choose({head: ALL, i: 9, j: 4})")
    assert browser.value(words) == ["row 9, column 4", "Kept by 1 of 2 heads"]


def test_every_control_is_reached_by_keys(browser: Browser, tmp_path: Path) -> None:
    browser.size(1180, 1200)
    browser.open(write(everything(), tmp_path / "a.html"))
    reached = []
    for _ in range(12):
        browser.press("Tab", 9)
        reached.append(browser.value("document.activeElement.id || document.activeElement.tagName"))
    expected = ["theme", "layer", "head", "rows", "map", "cells", "BUTTON", "BUTTON", "BUTTON", "BUTTON", "SUMMARY"]
    assert reached[: len(expected)] == expected


def test_the_map_has_every_head_in_its_kinds_colour(browser: Browser, tmp_path: Path) -> None:
    classes = lower(loads(OTHER.replace("CAUSAL", "true")))
    found = overview(classes)
    browser.size(1180, 1200)
    browser.open(write(classes, tmp_path / "a.html"), "layer=1&head=7")
    box = "(({left, top, width, height}) => [left, top, width, height])(get('map').getBoundingClientRect())"
    left, top, width, height = browser.value(box)
    across, down = width / classes.heads, height / classes.layers
    for layer, line in enumerate(found.cells[0]):
        for head, kind in enumerate(line):
            seen = browser.pixel(left + (head + 0.85) * across, top + (layer + 0.85) * down)  # beside letters
            assert seen == [*rgb(found.kinds[kind].colour())], (layer, head)
    words = browser.value("get('kinds').textContent")
    assert all(f"{kind.letter}{kind.parts}: {kind.density} kept" in words for kind in found.kinds)


def test_the_map_chooses_a_head(browser: Browser, tmp_path: Path) -> None:
    browser.size(1180, 1200)
    browser.open(write(lower(loads(OTHER.replace("CAUSAL", "true"))), tmp_path / "a.html"))
    place = "{clientX: box.left + box.width * 5.5 / 8, clientY: box.top + 1}"
    press = f"get('map').dispatchEvent(new MouseEvent('click', {place}))"
    browser.value(f"(() => {{ const box = get('map').getBoundingClientRect(); {press}; }})()")
    assert browser.value("[state.layer, state.head, get('head').value]") == [0, 5, "5"]
    browser.value("get('map').focus()")
    browser.press("ArrowDown", 40)
    browser.press("ArrowLeft", 37)
    assert browser.value("[state.layer, state.head]") == [1, 4]
    assert browser.value("get('map-place').textContent").startswith("layer 1, head 4: ")


def test_a_page_of_two_patterns_stands_still(browser: Browser, tmp_path: Path) -> None:
    browser.size(1000, 1200)
    browser.open(write(everything(NASTY), tmp_path / "a.html", one_layer("d<2", "all", name="other")))
    assert browser.value("document.title") == f"{NASTY} beside other"
    assert browser.value("document.querySelectorAll('script, img').length") == 0
    assert browser.value("document.querySelectorAll('svg text').length") > 10


def test_colours_follow_the_theme(browser: Browser, tmp_path: Path) -> None:
    """Parts keep their hue, the field is the theme's, the future is paper."""
    page = write(one_layer("d<2 | j%4==1"), tmp_path / "a.html", head=0, rows=16)
    themes = ((FIELD, PAPER), (NIGHT_FIELD, NIGHT_PAPER))
    for dark in (False, True):
        browser.size(1180, 1200, dark)
        browser.open(page)
        left, top, width = browser.value(
            "(({left, top, width}) => [left, top, width])(get('cells').getBoundingClientRect())"
        )

        def seen(i: int, j: int) -> list[int]:
            return browser.pixel(left + (j + 0.5) * width / 16, top + (i + 0.5) * width / 16)  # noqa: B023

        colours = [PARTS["local"], PARTS["stride"], *themes[dark]]
        places = ((9, 8), (9, 1), (9, 2), (9, 12))
        assert [seen(*place) for place in places] == [[*rgb(colour)] for colour in colours]
        browser.value("get('theme').click()")
        assert [seen(*place) for place in places[2:]] == [[*rgb(colour)] for colour in themes[not dark]]


def test_what_people_write_is_shown_not_run(browser: Browser, tmp_path: Path) -> None:
    classes = everything(name=NASTY)
    browser.open(write(classes, tmp_path / "a.html", about=NASTY))
    assert browser.value("[get('name').textContent, get('about').textContent, document.title]") == [NASTY] * 3
    assert browser.value("document.querySelectorAll('script').length") == 2
    assert browser.value("document.images.length") == 0


@pytest.mark.parametrize(
    "fragment", ["head=99&layer=-4&length=1e99", "head=<b>&length=NaN&row=1e9", "%E0%A4%A", "a=b=c&&&"]
)
def test_any_address_opens(browser: Browser, fragment: str, tmp_path: Path) -> None:
    browser.open(write(everything(), tmp_path / "a.html"), fragment)
    rows, i, layer = browser.value("[state.rows, state.i, state.layer]")
    assert 1 <= rows <= 256 and 0 <= i < rows and layer == 0


def test_svg_looks_as_it_says(browser: Browser, tmp_path: Path) -> None:
    """Strokes and fills meet without seams: the middle and two corners of squares, in a picture of a head."""
    picture = write(one_layer("d<2 | 2<=d<8 & (i-j)%2==0 | j%8==1"), tmp_path / "a.svg", rows=16, head=0)
    place = re.search(r"translate\(([\d.]+) ([\d.]+)\) scale\(([\d.]+)\)", picture.read_text(encoding="utf-8"))
    assert place
    left, top, side = map(float, place.groups())
    browser.size(960, 700)
    browser.open(picture)
    for i, j, kind in (
        (9, 9, "local"),
        (9, 7, "stride"),
        (9, 6, None),
        (13, 1, "stride"),
        (12, 1, "stride"),
        (15, 2, None),
    ):
        for shift in (0.1, 0.5, 0.9):
            seen = browser.pixel(left + (j + shift) * side, top + (i + shift) * side)
            assert seen == [*rgb(PARTS[kind] if kind else FIELD)], (i, j, shift)
