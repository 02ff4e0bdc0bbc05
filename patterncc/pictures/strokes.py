"""A small alphabet of pen strokes for pictures that carry no font (PNG).

A glyph is a list of strokes, a stroke a list of points "xy" on a grid: capitals stand on y = 7 and reach y = 0,
small letters reach y = 2, descenders y = 9. A stroke that begins with `~` is bent (its ends stay), one with `o` is
bent and closed, a single point is a dot.
"""

from __future__ import annotations

from functools import lru_cache

Stroke = tuple[tuple[float, float], ...]

CAP_HEIGHT, SPACING, BLANK = 7, 1.9, 2.6  # in units of the grid

GLYPHS = {
    "A": "073067 1555", "B": "0007 ~00404303 ~03535707", "C": "~515000075756", "D": "0007 ~00505707",
    "E": "40000747 0333", "F": "400007 0333", "G": "~515000075754 5434", "H": "0007 5057 0353", "I": "0007",
    "J": "4045 ~45470705", "K": "0007 4004 1347", "L": "000747", "M": "0700346067", "N": "07005750",
    "O": "o00505707", "P": "0007 ~00404404", "Q": "o00505707 3558", "R": "0007 ~00404404 2447",
    "S": "~5150000354570706", "T": "0040 2027", "U": "0004 ~04075754 5450", "V": "003760", "W": "0027426780",
    "X": "0057 5007", "Y": "002440 2427", "Z": "00500757",
    "a": "o02424707 4247", "b": "o02424707 0007", "c": "~434202074746", "d": "o02424707 4047",
    "e": "0444 ~444202074746", "f": "~301012 1217 0232", "g": "o02424707 4247 ~474909", "h": "0007 ~04024244 4447",
    "i": "0207 00", "j": "1217 ~171909 10", "k": "0007 3205 1437", "l": "0007",
    "m": "0207 ~04023234 3437 ~34326264 6467",
    "n": "0207 ~04024244 4447", "o": "o02424707", "p": "o02424707 0209", "q": "o02424707 4249", "r": "0207 ~040232",
    "s": "~4342020445470706", "t": "1016 ~161737 0232", "u": "0205 ~05074745 4247", "v": "022742", "w": "0217335762",
    "x": "0247 4207", "y": "0227 4219", "z": "02420747",
    "0": "o00404707", "1": "022027", "2": "~0200404307 0747", "3": "~0100404323 ~2343470706", "4": "37300545",
    "5": "400003 ~0343470706", "6": "o03434707 ~300005", "7": "004017", "8": "o00404303 o03434707",
    "9": "o00404404 ~424717",
    ".": "07", ",": "1709", ":": "03 07", ";": "13 1709", "!": "0004 07", "?": "~0200404324 2425 27", "-": "0434",
    "–": "0454", "—": "0474", "_": "0848", "+": "0545 2327", "=": "0444 0646", "*": "2125 0244 4204", "/": "0830",
    "\\": "0038", "|": "0009", "(": "~20020729", ")": "~00222709", "[": "20000828", "]": "00202808",
    "{": "~30101304 ~04151838", "}": "~00202334 ~34252808", "<": "410447", ">": "014407",
    "%": "5007 o00202303 o34545737", "&": "~5703003003 ~0304075754", "#": "1017 3037 0242 0545",
    "@": "o00606707 o22424525", "'": "0002", "’": "0002", '"': "0002 2022", "`": "0011", "~": "~05034743",
    "^": "022042",
    "$": "~4140000344470706 2028", "×": "0347 4307", "·": "04", "…": "07 27 47", "≤": "410447 0949", "≥": "014407 0949",
    "°": "o00202202", "→": "0555 335537", "∪": "0004 ~04075754 5450", " ": "",
}  # fmt: skip
UNKNOWN = "0040470700"


@lru_cache(maxsize=512)
def strokes(character: str) -> tuple[tuple[Stroke, ...], float]:
    """The strokes of a character and how far the pen moves on, in units of the grid.

    >>> strokes("L")
    ((((0, 0), (0, 7), (4, 7)),), 5.9)
    """
    if character == " ":
        return (), BLANK
    drawn = []
    for text in GLYPHS.get(character, UNKNOWN).split():
        digits = text.lstrip("~o")
        points = tuple((int(x), int(y)) for x, y in zip(digits[::2], digits[1::2], strict=True))
        drawn.append(_bent(points, closed=text[0] == "o") if text[0] in "~o" else points)
    return tuple(drawn), max(x for stroke in drawn for x, _ in stroke) + SPACING


def width(text: str) -> float:
    """How long a line of text is, in units of the grid."""
    return sum(strokes(character)[1] for character in text) - (SPACING if text else 0)


def _bent(points: Stroke, closed: bool, times: int = 3) -> Stroke:
    """Corners cut (Chaikin, 1974): each pass puts two points on every segment, a quarter from its ends."""
    for _ in range(times):
        pairs = list(zip(points, (*points[1:], *points[:1]) if closed else points[1:], strict=False))
        cut = [(a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share) for a, b in pairs for share in (0.25, 0.75)]
        points = tuple(cut) if closed else (points[0], *cut[1:-1], points[-1])
    return (*points, points[0]) if closed else points
