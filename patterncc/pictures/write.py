"""A picture as a file; its suffix says which kind."""

from __future__ import annotations

from pathlib import Path

from patterncc.errors import UsageError, did_you_mean
from patterncc.ir.layout import Classes
from patterncc.pictures.figure import figure
from patterncc.pictures.svg import svg
from patterncc.pictures.text import telling_rows
from patterncc.pictures.view import check_choice, check_rows

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
    check_choice(classes, layer, head)
    if suffix == ".html":
        from patterncc.pictures.html import html

        shown = check_rows(rows or telling_rows(classes.layouts, classes.block, least=32))
        made = html(classes, rows=shown, about=about, layer=layer or 0, head=None if union else head).encode()
    else:
        scene = figure(classes, layer=layer, head=head, union=union, rows=rows, about=about)
        if suffix == ".svg":
            made = svg(scene).encode()
        else:
            from patterncc.pictures.png import png

            made = png(scene)
    try:
        path.write_bytes(made)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from None
    return path
