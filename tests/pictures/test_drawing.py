"""Letters, lines and colours of pictures: all are drawn, stand where they should, and can be told apart."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from patterncc.pictures.palette import FIELD, HEADS, PARTS, part_colour
from patterncc.pictures.png import png
from patterncc.pictures.scene import Label, Line, Scene
from tests.pictures.sight import BLINDNESS, lab, linear, pixels


def written(text: str) -> NDArray[np.uint8]:
    scene = Scene(400, 40, "t", "a")
    scene.add(Label(4, 30, text, 20, "#000000"))
    return pixels(png(scene))


def test_every_letter_of_a_name_and_of_our_words_is_drawn() -> None:
    """All of printable ASCII, and the signs of titles, each unlike what stands for a letter that the font lacks."""
    lacking = written("\ue000")
    for character in [*map(chr, range(33, 127)), *"×·…≤≥→–—"]:
        drawn = written(character)
        assert (drawn != 255).any() and (drawn != lacking).any(), character


def test_labels_stand_where_their_anchor_says() -> None:
    """Ink to the right of the place, around it, or to its left; bold letters have more of it."""
    ink = {}
    for anchor in ("start", "middle", "end"):
        for bold in (False, True):
            scene = Scene(200, 40, "t", "a")
            scene.add(Label(100, 30, "word", 12, "#000000", bold, anchor))
            dark = 255.0 - pixels(png(scene))[:, :, 0]
            ink[anchor, bold] = dark[:, :200].sum(), dark[:, 200:].sum()
    for bold in (False, True):
        assert ink["start", bold][0] < 0.02 * ink["start", bold][1] and ink["end", bold][1] < 0.02 * ink["end", bold][0]
        assert 0.7 < ink["middle", bold][0] / ink["middle", bold][1] < 1.4
    assert sum(ink["start", True]) > 1.1 * sum(ink["start", False])


def test_a_dashed_line_is_broken_and_ends_where_it_should() -> None:
    scene = Scene(100, 20, "t", "a")
    scene.add(Line(((5, 10), (50, 10), (95, 10)), "#000000", 2, dashed=True))
    scene.add(Line(((5, 4), (95, 4)), "#000000", 2))
    rows = pixels(png(scene))[:, :, 0] < 128
    dashes, whole = rows[20], rows[8]
    assert whole[12:188].all() and not whole[:8].any() and not whole[192:].any()
    changes = np.flatnonzero(np.diff(dashes.astype(int)))
    assert 20 <= len(changes) <= 30 and 0.5 < dashes[10:190].mean() < 0.7 and not dashes[:8].any()


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_colours_stay_apart(blindness: str) -> None:
    """Any two parts, and every part and the empty field, differ by at least 13 in L*a*b* (2 to 3 is just visible)."""
    colours = [*PARTS.values(), FIELD, *(part_colour(kind, False) for kind in ("local", "sink"))]
    seen = [lab(np.clip(np.array(BLINDNESS[blindness]) @ linear(colour), 0, 1)) for colour in colours]
    distances = {
        (colours[a], colours[b]): round(float(np.linalg.norm(seen[a] - seen[b])), 1)
        for a in range(len(seen)) for b in range(a)
    }  # fmt: skip
    assert not {pair: distance for pair, distance in distances.items() if distance < 13}
    assert len(set(HEADS)) == len(HEADS)
