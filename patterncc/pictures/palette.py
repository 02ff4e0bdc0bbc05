"""The colours of all pictures: apart for every common kind of colour blindness, calm on white and on black.

The hues are of Paul Tol's "vibrant", "bright" and "muted" schemes (SRON/EPS/TN/09-002), one a key of the language,
lightened or darkened until a test found any two apart without red or green cones. A block that is kept in part has
its part's hue, half way to the paper.
"""

from __future__ import annotations

from functools import lru_cache

PAPER, FIELD, INK, QUIET, RULE = "#ffffff", "#eef0f3", "#1f2733", "#667080", "#c9ced6"
NIGHT_PAPER, NIGHT_FIELD, NIGHT_INK, NIGHT_QUIET = "#14181f", "#262c36", "#e6e9ee", "#97a1b0"
NIGHT_RULE, NIGHT_ACCENT = "#3b4452", "#77aadd"

PARTS = {
    "dense": "#667181",
    "local": "#4477aa",
    "stride": "#ee7733",
    "sink": "#17a792",
    "chunk": "#332288",
    "globals": "#882255",
    "random": "#e0cf55",
    "mask": "#cc3311",
}
UNSEEN, NIGHT_UNSEEN = "#f6c7b6", "#a34e33"  # kept by no head
COUNTS, NIGHT_COUNTS = ("#d3e4f3", "#0c2f5c"), ("#2a4a6b", "#d8ebfd")  # kept by one head … by all of them
HEADS = ("#4477aa", "#ee7733", "#009988", "#aa3377", "#ccbb44", "#33bbee", "#228833", "#cc3311")


def mix(first: str, second: str, share: float) -> str:
    """The colour `share` of the way from the first to the second.

    >>> mix("#000000", "#ff8000", 0.5)
    '#804000'
    """
    pairs = ((int(first[k : k + 2], 16), int(second[k : k + 2], 16)) for k in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def part_colour(kind: str, whole: bool, paper: str = PAPER) -> str:
    """The colour of a block that such a part keeps."""
    return PARTS[kind] if whole else mix(PARTS[kind], paper, 0.5)


@lru_cache
def count_colour(count: int, heads: int, night: bool = False) -> str:
    """The colour of a block that `count` of `heads` heads keep.

    >>> count_colour(0, 8), count_colour(1, 8), count_colour(8, 8)
    ('#f6c7b6', '#d3e4f3', '#0c2f5c')
    """
    if count == 0:
        return NIGHT_UNSEEN if night else UNSEEN
    share = ((count - 1) / (heads - 1)) ** 0.5 if heads > 1 else 1.0
    return mix(*(NIGHT_COUNTS if night else COUNTS), share)
