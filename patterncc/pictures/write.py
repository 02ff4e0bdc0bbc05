"""A picture as a file; its suffix says which kind."""

from __future__ import annotations

from pathlib import Path

from patterncc.analysis.costs.price import LENGTH
from patterncc.errors import UsageError, did_you_mean
from patterncc.files import replace
from patterncc.ir.classes import Classes
from patterncc.pictures.figure import figure
from patterncc.pictures.pair import pair_figure
from patterncc.pictures.scene import Scene
from patterncc.pictures.svg import svg
from patterncc.pictures.text import telling_rows
from patterncc.pictures.view import check_choice, check_rows

SUFFIXES = (".svg", ".png", ".html")


def write(
    classes: Classes,
    path: str | Path,
    beside: Classes | None = None,
    *,
    layer: int | None = None,
    head: int | None = None,
    union: bool = False,
    rows: int | None = None,
    about: str = "",
    length: int = LENGTH,
    overview: bool = False,
) -> Path:
    """Write a picture of a pattern (`about`: its one sentence), or of two; give back its path. A page of one shows all.

    Kinds of heads are told apart by what they keep at `length` tokens; `overview` draws only these.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        near = did_you_mean(suffix, SUFFIXES)
        hint = f"; did you mean {near}?" if near else ""
        raise UsageError(f"cannot draw {path.name!r}", f"a picture ends in {', '.join(SUFFIXES)}{hint}")
    check_choice(classes, layer, head)
    if beside is not None:
        scene = pair_figure(
            classes,
            beside,
            layer=layer,
            head=head,
            union=union,
            tokens=rows and rows * classes.block,
            length=length,
            only_kinds=overview,
        )
        made = _painted(scene, suffix)
    elif suffix == ".html":
        from patterncc.pictures.html import html

        shown = check_rows(rows or telling_rows(classes.layouts, classes.block, least=32))
        made = html(
            classes, rows=shown, about=about, layer=layer or 0, head=None if union else head, length=length
        ).encode()
    else:
        scene = figure(
            classes, layer=layer, head=head, union=union, rows=rows, about=about, length=length, overview=overview
        )
        made = _painted(scene, suffix)
    replace(path, made)
    return path


def _painted(scene: Scene, suffix: str) -> bytes:
    if suffix == ".svg":
        return svg(scene).encode()
    if suffix == ".html":
        from patterncc.pictures.html import framed

        return framed(scene).encode()
    from patterncc.pictures.png import png

    return png(scene)
