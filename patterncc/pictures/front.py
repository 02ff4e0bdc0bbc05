"""The candidates of a suggestion as a plot: bytes of the cache across, share of the work up, both by powers of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log2

from patterncc.analysis.costs.price import amount
from patterncc.pictures.palette import FIELD, INK, PAPER, PARTS, QUIET
from patterncc.pictures.svg import FONT, escape, number

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 960, 72, 500, 56, 420
ROW = 34  # of the legend
POINT, DENSE = PARTS["local"], PARTS["dense"]


@dataclass(frozen=True)
class Point:
    """A candidate; `words` say what it is."""

    kv_bytes: int
    density: float
    words: str
    recommended: bool = False


def front_svg(points: Sequence[Point], dense_bytes: int) -> str:
    """The plot as SVG: a numbered circle for each point, the recommended one filled; beside it what each is."""
    low, high = _powers([dense_bytes, *(point.kv_bytes for point in points)])
    least, most = _powers([1.0, *(point.density for point in points)])

    def at(kv_bytes: float, density: float) -> tuple[float, float]:
        x = LEFT + (RIGHT - LEFT) * (log2(kv_bytes) - low) / max(high - low, 1)
        return x, BOTTOM - (BOTTOM - TOP) * (log2(density) - least) / max(most - least, 1)

    height = max(BOTTOM + 60, TOP + ROW * (len(points) + 1) + 20)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        f' role="img" font-family="{FONT}" font-size="12" fill="{INK}">',
        "<title>Patterns that were found: cache and work</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>',
        f'<text x="{LEFT}" y="32" font-weight="600">Work, share of dense attention</text>',
        f'<text x="{RIGHT}" y="{BOTTOM + 42}" text-anchor="end" font-weight="600">KV cache of a request</text>',
    ]
    for k in range(low, high + 1, max(1, ceil((high - low) / 8))):
        x = number(at(2.0**k, 1)[0])
        lines.append(f'<path d="M{x} {TOP}V{BOTTOM}" stroke="{FIELD}"/>')
        lines.append(
            f'<text x="{x}" y="{BOTTOM + 18}" text-anchor="middle" fill="{QUIET}">{amount(2.0**k, "B", 1024)}</text>'
        )
    for k in range(least, most + 1):
        y = number(at(2.0**low, 2.0**k)[1])
        lines.append(f'<path d="M{LEFT} {y}H{RIGHT}" stroke="{FIELD}"/>')
        share = f"1/{2**-k:,}" if k else "1"
        lines.append(f'<text x="{LEFT - 10}" y="{y}" dy="4" text-anchor="end" fill="{QUIET}">{share}</text>')
    x, y = at(dense_bytes, 1)
    lines.append(f'<rect x="{number(x - 8)}" y="{number(y - 8)}" width="16" height="16" fill="{DENSE}"/>')
    for n, point in enumerate(points, start=1):
        lines += _mark(n, *at(point.kv_bytes, point.density), point)
    for n, point in enumerate(points, start=1):
        lines += _explained(TOP + ROW * (n - 1), n, point)
    y = TOP + ROW * len(points)
    lines.append(f'<rect x="{RIGHT + 42}" y="{y - 8}" width="16" height="16" fill="{DENSE}"/>')
    lines.append(f'<text x="{RIGHT + 72}" y="{y + 4}">dense attention: {amount(dense_bytes, "B", 1024)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _mark(n: int, x: float, y: float, point: Point) -> list[str]:
    fill, ink = (POINT, PAPER) if point.recommended else (PAPER, INK)
    what = escape(f"{point.words}: {amount(point.kv_bytes, 'B', 1024)}, {point.density:.1%}")
    return [
        f'<circle cx="{number(x)}" cy="{number(y)}" r="9" fill="{fill}" stroke="{POINT}" stroke-width="2">'
        f"<title>{what}</title></circle>",
        f'<text x="{number(x)}" y="{number(y)}" dy="4" text-anchor="middle" font-size="11" fill="{ink}">{n}</text>',
    ]


def _explained(y: float, n: int, point: Point) -> list[str]:
    """A row of the legend; its mark is a square with round corners, so that circles are points."""
    fill, ink = (POINT, PAPER) if point.recommended else (PAPER, INK)
    said = f"{amount(point.kv_bytes, 'B', 1024)}, {point.density:.1%} of the work{', recommended' * point.recommended}"
    place = f'x="{RIGHT + 41}" y="{number(y - 9)}" width="18" height="18" rx="9"'
    return [
        f'<rect {place} fill="{fill}" stroke="{POINT}" stroke-width="2"/>',
        f'<text x="{RIGHT + 50}" y="{number(y + 4)}" text-anchor="middle" font-size="11" fill="{ink}">{n}</text>',
        f'<text x="{RIGHT + 72}" y="{number(y - 2)}" font-weight="600">{escape(point.words)}</text>',
        f'<text x="{RIGHT + 72}" y="{number(y + 13)}" fill="{QUIET}">{said}</text>',
    ]


def _powers(values: Sequence[float]) -> tuple[int, int]:
    """The powers of two below and above all values.

    >>> _powers([3, 9]), _powers([4])
    ((1, 4), (2, 2))
    """
    return floor(log2(min(values))), ceil(log2(max(values)))
