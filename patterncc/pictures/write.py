"""A picture as a file; its suffix says which kind."""

from __future__ import annotations

from pathlib import Path

from patterncc.errors import UsageError, did_you_mean
from patterncc.ir.layout import Classes
from patterncc.pictures.figure import figure

SUFFIXES = (".svg", ".png", ".html")


def write(
    classes: Classes,
    path: str | Path,
    *,
    layer: int | None = None,
    head: int | None = None,
    union: bool = False,
    rows: int | None = None,
    about: str = "",
) -> Path:
    """Write a picture of a pattern (`about`: its one sentence) and give back its path; HTML shows all of it."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        near = did_you_mean(suffix, SUFFIXES)
        hint = f"; did you mean {near}?" if near else ""
        raise UsageError(f"cannot draw {path.name!r}", f"a picture ends in {', '.join(SUFFIXES)}{hint}")
    scene = figure(classes, layer=layer, head=head, union=union, rows=rows, about=about)
    if suffix == ".svg":
        from patterncc.pictures.svg import svg

        path.write_text(svg(scene), encoding="utf-8", newline="\n")
    else:
        from patterncc.pictures.png import png

        path.write_bytes(png(scene))
    return path
