"""The candidates of a suggestion as a plot: bytes of the cache across, share of the work up."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, EDGE = 560, 360, 56


def front_svg(points: Sequence[tuple[int, float, bool]], dense_bytes: int) -> str:
    """SVG text; a point is (KV bytes a request, density, recommended), the recommended one is filled."""
    most = max([dense_bytes // 2, *(bytes_ for bytes_, _, _ in points)])
    top = max([0.05, *(density for _, density, _ in points)])

    def at(bytes_: int, density: float) -> tuple[float, float]:
        x = EDGE + (WIDTH - 2 * EDGE) * bytes_ / most
        return x, HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * density / top

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<path d="M{EDGE} {EDGE}V{HEIGHT - EDGE}H{WIDTH - EDGE}" fill="none" stroke="#666"/>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 14}" text-anchor="middle">KV cache of a request, GiB</text>',
        f'<text x="16" y="{HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 16 {HEIGHT / 2})">'
        "work, % of dense</text>",
    ]
    for n in range(5):
        x, y = at(most * n // 4, top * n / 4)
        lines.append(
            f'<text x="{x:.1f}" y="{HEIGHT - EDGE + 16}" text-anchor="middle">{most * n / 4 / 2**30:.3g}</text>'
        )
        lines.append(f'<text x="{EDGE - 8}" y="{y + 4:.1f}" text-anchor="end">{100 * top * n / 4:.3g}</text>')
    for bytes_, density, recommended in points:
        x, y = at(bytes_, density)
        what = escape(f"{bytes_ / 2**30:.3g} GiB, {density:.1%}{', recommended' if recommended else ''}")
        fill = "#0072b2" if recommended else "white"
        lines.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{fill}" stroke="#0072b2" stroke-width="2">'
            f"<title>{what}</title></circle>"
        )
    return "\n".join([*lines, "</svg>", ""])
