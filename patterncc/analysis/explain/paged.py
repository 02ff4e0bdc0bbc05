"""Why an engine with pages frees less than the compact cache: in words, with both numbers."""

from __future__ import annotations

from patterncc.analysis.costs.live import held
from patterncc.analysis.costs.paged import PAGE, paged_tokens
from patterncc.analysis.geometry.missing import runs
from patterncc.analysis.scopes import kv_groups, layer_classes
from patterncc.errors import counted
from patterncc.ir.classes import Classes


def paged_explanations(classes: Classes, length: int) -> tuple[str, ...]:
    """A line for each layer class whose KV heads keep different keys: what pages hold, what `KVCache` holds, and why.

    >>> from patterncc.ir.layout import Layout
    >>> two = Layout.parse("d<4 | j%8==0"), Layout.parse("d<4 | j%8==4")
    >>> print(*paged_explanations(Classes("x", 64, True, 64, 2, 2, two, ((0, 1),)), 6400))
    layer 0 at 6,400 tokens: KVCache holds 16.0% of the keys, an engine with pages of 16 tokens (vLLM) 28.0%. Its \
block tables serve all 2 KV heads, which keep 2 different sets of keys, and a page lives while any of them reads it
    """
    if not classes.causal:
        return ()
    told = []
    for layers in layer_classes(classes):
        row = classes.of[layers[0]]
        groups = [frozenset(row[head] for head in group) for group in kv_groups(classes, layers[0])]
        if len(kinds := set(groups)) == 1:
            continue
        of = {
            kind: held(tuple(classes.layouts[k] for k in sorted(kind)), classes.block, length).tokens for kind in kinds
        }
        kept = sum(of[kind] for kind in groups) / len(groups) / length
        paged = min(paged_tokens(classes, layers[0], length) / length, 1.0)
        if paged <= kept:
            continue
        who = f"layer{'s' * (len(layers) > 1)} {runs(layers)} at {counted(length, 'token')}"
        told.append(
            f"{who}: KVCache holds {kept:.1%} of the keys, an engine with pages of {PAGE} tokens (vLLM) {paged:.1%}. "
            f"Its block tables serve all {len(groups)} KV heads, which keep {len(kinds)} different sets of keys, and a "
            "page lives while any of them reads it"
        )
    return tuple(told)
