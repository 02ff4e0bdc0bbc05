"""`patterncc diff`: two patterns compared by meaning."""

from __future__ import annotations

from patterncc.analysis.diff import Diff, diff
from patterncc.analysis.missing import runs
from patterncc.cli import output
from patterncc.pipeline import lower
from patterncc.runtime.gallery import find
from patterncc.spec import load

SAID = {True: "holds", False: "fails", None: "undecided"}
MOST_LAYERS = 8


def run(a: str, b: str, json: bool) -> int:
    """0 when they are equal, 1 when they differ or that could not be decided."""
    found = diff(*(lower(load(find(name))) for name in (a, b)))
    if json:
        output.document(found.to_json())
    else:
        tell(found)
    return 0 if found.equal else 1


def tell(found: Diff) -> None:
    """First token pairs each way, where they differ, and what that changes."""
    names = [output.paint(name, output.BOLD) for name in (found.a, found.b)]
    if found.equal:
        print(f"{names[0]} and {names[1]} keep the same")
        return
    print(f"{names[0]} and {names[1]} {'differ' if found.equal is False else 'may differ: undecided'}")
    for name, only in ((found.a, found.comparison.only_in_a), (found.b, found.comparison.only_in_b)):
        print(f"  only in {name}: {only or 'nothing'}")
    if found.comparison.note:
        print(f"  {found.comparison.note}")
    for layer, heads in found.by_layer[:MOST_LAYERS]:
        print(f"  layer {layer}: heads {runs(heads)}")
    if (left := len(found.by_layer) - MOST_LAYERS) > 0:
        print(f"  and {left} more layers")
    rows = [(f.name, f"{f.a:.6g}", f"{f.b:.6g}") for f in found.figures if f.a != f.b]
    if rows:
        output.columns(rows, header=(f"at {found.length:,} tokens", "a", "b"), right="a b", indent=2)
    for turned in found.turned:
        print(f"  {turned.property} ({turned.scope}): a {SAID[turned.a]}, b {SAID[turned.b]}")
