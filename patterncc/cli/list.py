"""`patterncc list`: what is shipped."""

from __future__ import annotations

from patterncc.cli import output
from patterncc.language import load
from patterncc.runtime.gallery import shipped


def run(json: bool) -> int:
    """Print the name, shape and one sentence of each shipped pattern."""
    patterns = [load(path) for path in shipped().values()]
    if json:
        keys = ("name", "about", "heads", "kv_heads", "head_dim", "layers", "block", "causal")
        output.document([{key: getattr(pattern, key) for key in keys} for pattern in patterns])
        return 0
    rows = [(p.name, f"{p.heads}/{p.kv_heads}", str(p.layers), str(p.block), p.about) for p in patterns]
    output.columns(rows, header=("name", "heads/kv", "layers", "block", "about"), right=["heads/kv", "layers", "block"])
    return 0
