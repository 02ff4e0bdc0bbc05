"""From a plan to the files of a package."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import astuple, replace
from typing import Any

from patterncc.analysis.verdict import Verdict
from patterncc.codegen.index_map import index_map
from patterncc.codegen.package import GeneratedPackage, check_name
from patterncc.codegen.row_map import row_map
from patterncc.codegen.specialise import specialise
from patterncc.codegen.template import FOLDER, TemplateError, companions, templates
from patterncc.codegen.words import ranges
from patterncc.ir.closed import ClosedForm
from patterncc.ir.layout import Layout, Mask
from patterncc.ir.plan import Plan
from patterncc.pictures.text import grid, legend, telling_rows

MOST_DRAWN, MOST_ROWS, GAP = 4, 24, 3  # classes that the docstring draws, their rows, characters between them
INDEX_MAPS = {"kernels/index_map.py": index_map, "kernels/row_map.py": row_map}
WITNESS = ("row", "column", "query_token", "key_token")
MOST_NAMED = 12  # classes that it lists
WIDTH = 100


def specialise_package(
    plan: Plan, about: str, promises: Mapping[str, Any] | None, source: str, kv: Iterable[Verdict]
) -> GeneratedPackage:
    """The package of a plan: every template with the pattern's facts in it, and the masks.

    `source` is the YAML text, which only the manifest holds; `kv` are the verdicts that `prove_for_caches` gives.
    """
    name, known = check_name(plan.classes.name), constants(plan, about, promises, kv)
    names = {kernel: f"{kernel}_{name}" for template in templates().values() for kernel in template.kernels}
    sources = dict(companions())
    for file, template in templates().items():
        values = {constant: known[constant] for constant in template.values if constant in known}
        text_of_map = index_map_of(file, plan) if template.index_map else None
        text = specialise(template.text, values, index_map=text_of_map, names=names)
        if file == "package.py":
            file, text = "__init__.py", set_docstring(text, docstring(plan, about))
        sources[file] = text.encode()
    sources |= {mask_file(n): mask.bits for n, mask in enumerate(masks(plan))}
    return GeneratedPackage(name, source, {"form": plan.form}, sources)


def index_map_of(file: str, plan: Plan) -> str:
    """The text of a template's index map."""
    if file not in INDEX_MAPS:
        raise TemplateError(f"{file} has an index map that nobody writes")
    return INDEX_MAPS[file](plan)


def constants(plan: Plan, about: str, promises: Mapping[str, Any] | None, kv: Iterable[Verdict]) -> dict[str, object]:
    """Every constant of every template, by name."""
    classes, known = plan.classes, masks(plan)
    return {
        "NAME": classes.name,
        "BLOCK": classes.block,
        "HEAD_DIM": classes.head_dim,
        "V_HEAD_DIM": classes.v_head_dim,
        "HEADS": classes.heads,
        "KV_HEADS": classes.kv_heads,
        "LAYERS": classes.layers,
        "CAUSAL": classes.causal,
        "IS_CAUSAL": classes.causal,
        "FORM": plan.form,
        "ROWS_PER_TILE_FREE": plan.free_tiles,
        "SOFTCAP": classes.softcap,
        "HAS_SOFTCAP": classes.softcap > 0,
        "NEEDS_SINKS": classes.sinks,
        "CLASSES": tuple(_rules(known, *pair) for pair in zip(classes.layouts, plan.closed, strict=True)),
        "CLASS_OF": classes.of,
        "MASKS": tuple((mask_file(n), mask.rows, mask.columns) for n, mask in enumerate(known)),
        "FACTS": {
            "name": classes.name,
            "about": about,
            "heads": classes.heads,
            "kv_heads": classes.kv_heads,
            "head_dim": classes.head_dim,
            "v_head_dim": classes.v_head_dim,
            "layers": classes.layers,
            "block": classes.block,
            "causal": classes.causal,
            "softcap": classes.softcap or None,
            "sinks": "learned" if classes.sinks else None,
            "promises": None if promises is None else {key: _plain(value) for key, value in promises.items()},
            "classes": [_text(layout) for layout in classes.layouts],
            "kv": taken_up_again(classes.layers, kv),
        },
    }


def taken_up_again(layers: int, kv: Iterable[Verdict]) -> list[dict[str, Any] | None]:
    """For each layer None where it is proved that no head takes up a column it has dropped, else why not: a compact
    cache keeps only what is still to be read, and refuses such a layer."""
    found: list[dict[str, Any] | None] = [None] * layers
    for verdict in kv:
        if verdict.holds is not True:
            witness: dict[str, Any] = verdict.witness.to_json() if verdict.witness else dict.fromkeys(WITNESS)
            note = verdict.note or verdict.proof
            entry = {"head": verdict.heads[0] if verdict.heads else None, **witness, "note": note}
            for layer in verdict.layers:
                found[layer] = entry
    return found


def masks(plan: Plan) -> list[Mask]:
    """The distinct masks, in the order of their first class."""
    return list(dict.fromkeys(layout.mask for layout in plan.classes.layouts if layout.mask))


def mask_file(number: int) -> str:
    return f"mask_{number}.bin"


def docstring(plan: Plan, about: str) -> str:
    """What `help` of the package shows: the pattern in words and as a drawing.

    >>> from patterncc.ir.layout import Classes
    >>> from patterncc.passes.choose_plan import choose_plan
    >>> classes = Classes("demo", 64, True, 128, 2, 1, (Layout.parse("d<2"), Layout.parse("all")), ((0, 1), (1, 1)))
    >>> print(docstring(choose_plan(classes), "A window.")[:260])
    demo: A window.
    <BLANKLINE>
    Block-sparse attention, generated by patterncc. Do not edit: change the pattern and compile again.
    2 query heads, 1 KV head, head_dim 128, 2 layers, block 64, causal. 2 classes:
    <BLANKLINE>
        class 0  layer 0, head 0: d<2
        class 1  some heads: all
    """
    classes = plan.classes
    plural = {n: "" if n == 1 else "s" for n in (classes.heads, classes.kv_heads, classes.layers)}
    values = f" and v_head_dim {classes.v_head_dim}" if classes.v_head_dim != classes.head_dim else ""
    facts = (
        f"{classes.heads} query head{plural[classes.heads]}, {classes.kv_heads} KV head{plural[classes.kv_heads]}, "
        f"head_dim {classes.head_dim}{values}, {classes.layers} layer{plural[classes.layers]}, block {classes.block}, "
        f"{'causal' if classes.causal else 'not causal'}. "
        f"{len(classes.layouts)} class{'es' if len(classes.layouts) > 1 else ''}:"
    )
    heading = textwrap.wrap(f"{classes.name}: {about}" if about else classes.name, WIDTH, break_long_words=False)
    note = "Block-sparse attention, generated by patterncc. Do not edit: change the pattern and compile again."
    lines = [*heading, "", note, *textwrap.wrap(facts, WIDTH), ""]
    for number, layout in list(enumerate(classes.layouts))[:MOST_NAMED]:
        text = f"class {number}  {_whose(plan, number)}: {_text(layout)}"
        lines += textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="        ")
    if (left := len(classes.layouts) - MOST_NAMED) > 0:
        lines.append(f"    and {left} more")
    return "\n".join([*lines, "", *(f"    {line}".rstrip() for line in drawings(plan)), "", rooms()])


def drawings(plan: Plan) -> list[str]:
    """Drawings of the first classes side by side, as many as fit into the line width."""
    classes = plan.classes
    rows = min(MOST_ROWS, telling_rows(classes.layouts[:MOST_DRAWN], classes.block))
    shown = classes.layouts[: min(MOST_DRAWN, (WIDTH - 4 + GAP) // (2 * rows - 1 + GAP))]
    panels = [
        [f"class {n}, {rows} rows", *grid(layout, causal=classes.causal, block=classes.block, rows=rows)]
        for n, layout in enumerate(shown)
    ]
    beside = ["".join(part.ljust(2 * rows - 1 + GAP) for part in line).rstrip() for line in zip(*panels, strict=True)]
    return [*beside, "   ".join(legend(shown))]


def rooms() -> str:
    """The map of a package's folders, as it stands in the templates' own docstring."""
    text = ast.get_docstring(ast.parse((FOLDER / "__init__.py").read_text(encoding="utf-8"))) or ""
    return text.partition("\n\n")[2]


def set_docstring(text: str, words: str) -> str:
    """Put `words` in the place of the module's docstring."""
    first = ast.parse(text).body[0]
    if not (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    ):
        raise TemplateError("the package's template has no docstring to replace")
    written = words.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    result = "\n".join([f'"""{written}', '"""', *text.split("\n")[first.end_lineno :]])
    if ast.get_docstring(ast.parse(result), clean=False) != words + "\n":
        raise TemplateError("the docstring written does not read back equal")
    return result


def _rules(known: list[Mask], layout: Layout, form: ClosedForm | None) -> dict[str, object]:
    """A class as plain data: its text, and every field of its layout and closed form."""
    mask = known.index(layout.mask) if layout.mask else None
    bands = form and tuple((b.d_from, b.d_to, b.every, b.residues, b.anchor) for b in form.bands)
    return {
        "text": _text(layout),
        "terms": tuple(map(astuple, layout.terms)),
        "window": layout.window,
        "sink": layout.sink,
        "random": layout.random and astuple(layout.random),
        "mask": mask,
        "chunk": layout.chunk,
        "bands": layout.bands,
        "closed": form and (form.sink, bands),
    }


def _text(layout: Layout) -> str:
    """The layout's text, of a mask only its size."""
    text = str(replace(layout, mask=None))
    mask = layout.mask and f"mask {layout.mask.rows}x{layout.mask.columns}"
    return text if mask is None else mask if text == "nothing" else f"{text} | {mask}"


def _whose(plan: Plan, number: int) -> str:
    """The layers and heads of a class, in words."""
    classes = plan.classes
    layers = [n for n, row in enumerate(classes.of) if number in row]
    heads = {tuple(h for h, k in enumerate(classes.of[n]) if k == number) for n in layers}
    where = "" if len(layers) == classes.layers else f"layer{'s' if len(layers) > 1 else ''} {ranges(layers)}, "
    if len(heads) > 1:
        return f"{where}some heads"
    which = next(iter(heads))
    if len(which) == classes.heads:
        return where.removesuffix(", ") or "every head"
    return f"{where}head{'s' if len(which) > 1 else ''} {ranges(which)}"


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
