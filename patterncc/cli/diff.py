"""`patterncc diff`: two patterns compared by meaning."""

from __future__ import annotations

from patterncc.analysis.explain.diff import Diff, diff
from patterncc.analysis.explain.report import SAID
from patterncc.analysis.geometry.missing import runs
from patterncc.cli import output
from patterncc.errors import counted
from patterncc.language import load
from patterncc.passes import lower
from patterncc.runtime.gallery import find

MOST_LINES = 8


def run(a: str, b: str, json: bool) -> int:
    """0 when they are equal, 1 when they differ or that could not be decided."""
    found = diff(lower(load(find(a))), lower(load(find(b))))
    if json:
        output.document(found.to_json())
    else:
        tell(found, a, b)
    return 0 if found.equal else 1


def tell(found: Diff, a: str, b: str) -> None:
    """Print the first token pairs that only one pattern keeps, the heads that differ, and what that changes."""
    print(f"a is {output.paint(a, output.BOLD)}, b is {output.paint(b, output.BOLD)}")
    if found.equal:
        print("  they keep the same token pairs")
        tell_scores(found)
        return
    print("  they differ" if found.equal is False else "  not decided")
    for name, only in (("a", found.comparison.only_in_a), ("b", found.comparison.only_in_b)):
        print(f"  only in {name}: {f'layer {only.layer}, head {only.head}, {only.witness}' if only else 'nothing'}")
    if found.comparison.note:
        print(f"  {found.comparison.note}")
    layers: dict[tuple[int, ...], list[int]] = {}
    for layer, heads in found.by_layer:
        layers.setdefault(heads, []).append(layer)
    for heads, places in list(layers.items())[:MOST_LINES]:
        print(f"  layer{'s' * (len(places) > 1)} {runs(places)}: head{'s' * (len(heads) > 1)} {runs(heads)}")
    if len(layers) > MOST_LINES:
        print(f"  and {counted(len(layers) - MOST_LINES, 'more set')} of heads: --json has all")
    rows = [(f.name, f"{f.a:.6g}", f"{f.b:.6g}") for f in found.figures if f.a != f.b]
    if rows:
        output.columns(rows, header=(f"at {counted(found.length, 'token')}", "a", "b"), right=["a", "b"], indent=2)
    tell_scores(found)
    for turned in found.turned:
        print(f"  {turned.property} ({turned.scope}): a {SAID[turned.a]}, b {SAID[turned.b]}")


def tell_scores(found: Diff) -> None:
    """Print in what the scores of the same pairs differ; `equal` is of token pairs alone."""
    unsaid = {"softcap": "none", "scale": "head_dim ** -0.5"}
    for name, *both in found.scores:
        a, b = (unsaid[name] if value is None else value for value in both)
        print(f"  {name}: a {a}, b {b}")
