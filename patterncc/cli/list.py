"""`patterncc list`: what is shipped."""

from __future__ import annotations

from typing import Any

from patterncc.cli import output
from patterncc.language import Pattern, load
from patterncc.language.shape import SIZES
from patterncc.runtime.gallery import shipped


def run(json: bool) -> int:
    """Print the name, shape and one sentence of each shipped pattern."""
    patterns = [load(path) for path in shipped().values()]
    if json:
        keys = ("name", "about", "heads", "kv_heads", "head_dim", "layers", "block", "causal")
        output.document([{key: getattr(pattern, key) for key in keys} | by_layer(pattern) for pattern in patterns])
        return 0
    rows = [(p.name, heads(p), str(p.layers), str(p.block), p.about) for p in patterns]
    output.columns(rows, header=("name", "heads/kv", "layers", "block", "about"), right=["heads/kv", "layers", "block"])
    return 0


def heads(pattern: Pattern) -> str:
    """Query and KV heads; where layers differ in them, all numbers that occur: `64,96/8`."""
    counts = {shape.heads for shape in pattern.shapes}, {shape.kv_heads for shape in pattern.shapes}
    return "/".join(",".join(map(str, sorted(count))) for count in counts)


def by_layer(pattern: Pattern) -> dict[str, Any]:
    """The sizes of every layer, where layers differ in them."""
    if len(set(pattern.shapes)) == 1:
        return {}
    return {"shapes": [{key: getattr(shape, key) for key in SIZES} for shape in pattern.shapes]}
