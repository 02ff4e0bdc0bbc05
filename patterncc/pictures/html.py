"""A pattern as one page: choose layer, head and length, point at a block, read why it is kept.

The file asks for nothing else and runs nothing else: its policy allows only this script and this style, by their
hashes, and what the YAML says stands in a block of data that the script puts on the page as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import fields
from importlib import resources
from typing import Any

from patterncc.analysis.costs.price import LENGTH
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout, Mask, Term
from patterncc.pictures import palette
from patterncc.pictures.heads import note
from patterncc.pictures.overview import Kind, hue, overview
from patterncc.pictures.parts import parts_of
from patterncc.pictures.scene import Scene
from patterncc.pictures.svg import escape, svg
from patterncc.pictures.view import MOST_ROWS, facts, layer_classes, panels_of

MOST_PANELS = 96


def html(
    classes: Classes, *, rows: int, about: str, layer: int = 0, head: int | None = None, length: int = LENGTH
) -> str:
    """The page's text; it opens with `layer`, `head` (None: all of them) and `rows`. Its map of all heads tells what
    they keep at `length` tokens."""
    style = _colours() + _resource("page.css")
    script = _resource("keep.js") + _resource("page.js").replace('"use strict";\n', "", 1)
    parts = {
        "POLICY": f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; base-uri 'none'",
        "TITLE": escape(classes.name),
        "STYLE": style,
        "SCRIPT": script,
        "DATA": _json(data(classes, rows=rows, about=about, layer=layer, head=head, length=length)),
    }
    first, *rest = _resource("page.html").split("$")
    return first + "".join(parts[text] if k % 2 == 0 else text for k, text in enumerate(rest))


def framed(scene: Scene) -> str:
    """A page of one drawing that runs nothing and asks for nothing."""
    style = "body{margin:0;background:#fff}svg{display:block;max-width:960px;width:100%;height:auto;margin:24px auto}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src {_hash(style)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(scene.title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{svg(scene)}</body>\n</html>\n"
    )


def data(
    classes: Classes, *, rows: int, about: str, layer: int, head: int | None, length: int = LENGTH
) -> dict[str, Any]:
    """The page's data as plain values."""
    kinds = layer_classes(classes)
    row_of = {layer: k for k, kind in enumerate(kinds) for layer in kind.layers}
    places: dict[int, tuple[int, int]] = {}
    for kind in kinds:
        for h, number in enumerate(kind.of):
            places.setdefault(number, (kind.layers[0], h))
    found = overview(classes, length=length)
    kind_of = {
        k: kind for of, line in zip(classes.of, found.cells[0], strict=True) for k, kind in zip(of, line, strict=True)
    }
    panels = zip(places.items(), panels_of(classes, None, None), strict=True)
    return {
        "name": classes.name,
        "about": about,
        "facts": facts(classes),
        "block": classes.block,
        "causal": classes.causal,
        "groups": [kind.group for kind in kinds],
        "rows": rows,
        "most_rows": min(MOST_ROWS, max(256, 4 * rows)),
        "layer": layer,
        "head": head,
        "classes": [{"parts": part_data(layout)} for layout in classes.layouts],
        "rows_of": [kind.of for kind in kinds],
        "layer_row": [row_of[layer] for layer in range(classes.layers)],
        "panels": [
            {"klass": number, "layer": place[0], "head": place[1], "heads": panel.heads, "layers": panel.layers}
            for (number, place), panel in panels
        ][:MOST_PANELS],
        "colours": palette.PARTS,
        "kinds": [kind_data(kind) for kind in found.kinds],
        "kind_of": [kind_of[k] for k in range(len(classes.layouts))],
        "note": note((classes,), found),
    }


def kind_data(kind: Kind) -> dict[str, Any]:
    """A kind of head, with its colour as the key that it takes it from and the share of that."""
    words = {"letter": kind.letter, "parts": kind.parts, "rule": kind.rule, "density": kind.density}
    return words | {"count": kind.count, "where": kind.where, "hue": hue(kind.layout), "strength": kind.strength}


def part_data(layout: Layout) -> list[dict[str, Any]]:
    """The parts of a layout in the order of `parts_of`, each with what keep.js needs to evaluate it."""
    rules: list[dict[str, Any]] = [
        {"type": "term"} | {f.name: getattr(term, f.name) for f in fields(Term)} for term in layout.terms
    ]
    if layout.chunk:
        rules.append({"type": "chunk", "blocks": layout.chunk})
    if layout.random:
        rules.append({"type": "random", "blocks": layout.random.blocks, "seed": layout.random.seed})
    if layout.mask:
        rules.append({"type": "mask"} | _mask(layout.mask))
    if layout.window:
        rules.append({"type": "window", "before": layout.window[0], "after": layout.window[1]})
    rules += [{"type": "band", "from": low, "to": high} for low, high in layout.bands]
    if layout.sink:
        rules.append({"type": "sink", "count": layout.sink})
    named = zip(parts_of(layout), rules, strict=True)
    return [{"kind": part.kind, "text": part.text, "whole": part.whole} | rule for part, rule in named]


def _mask(mask: Mask) -> dict[str, Any]:
    """The mask cut to what the page can show."""
    import numpy as np

    bits = np.unpackbits(np.frombuffer(mask.bits, np.uint8), count=mask.rows * mask.columns)
    shown = bits.reshape(mask.rows, mask.columns)[:MOST_ROWS, :MOST_ROWS]
    packed = base64.b64encode(np.packbits(shown).tobytes()).decode()
    return {"rows": shown.shape[0], "columns": shown.shape[1], "bits": packed}


def _json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _colours() -> str:
    """The palette as CSS variables, for light and for dark; the button's choice outweighs the system's."""
    p = palette
    light = {
        "paper": p.PAPER, "field": p.FIELD, "ink": p.INK, "quiet": p.QUIET, "rule": p.RULE, "accent": p.PARTS["local"],
        "unseen": p.UNSEEN, "count-one": p.COUNTS[0], "count-all": p.COUNTS[1], "night": "0",
    }  # fmt: skip
    dark = {
        "paper": p.NIGHT_PAPER, "field": p.NIGHT_FIELD, "ink": p.NIGHT_INK, "quiet": p.NIGHT_QUIET,
        "rule": p.NIGHT_RULE, "accent": p.NIGHT_ACCENT, "unseen": p.NIGHT_UNSEEN, "count-one": p.NIGHT_COUNTS[0],
        "count-all": p.NIGHT_COUNTS[1], "night": "1",
    }  # fmt: skip
    light_text, dark_text = (";".join(f"--{name}:{value}" for name, value in x.items()) for x in (light, dark))
    return (
        f":root{{{light_text}}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark_text}}}}}\n"
        f":root[data-theme=dark]{{{dark_text}}}\n"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _resource(name: str) -> str:
    return resources.files("patterncc.pictures").joinpath(name).read_text(encoding="utf-8")
