"""A broken property in a sentence that a person understands, with what would mend it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patterncc.analysis.costs.price import LENGTH, Price, price
from patterncc.analysis.explain.mend import Mend, mends
from patterncc.analysis.geometry.missing import Missing, missing, runs, strides_of
from patterncc.analysis.scopes import layer_classes
from patterncc.analysis.verdict import Verdict
from patterncc.errors import counted
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout

if TYPE_CHECKING:
    from patterncc.language import Pattern

DEFAULT = "; a file without `promises` promises that no row is empty: `promises: {}` promises nothing"


@dataclass(frozen=True)
class Explanation:
    """Why a verdict is what it is: the blocks that are missing (coverage), and proved mends."""

    subject: str
    missing: tuple[Missing, ...]
    mends: tuple[Mend, ...]
    verdict: Verdict
    price: Price | None = None  # of the pattern as it is

    def __str__(self) -> str:
        """E.g. "stride 16 with 8 KV heads: residues 8-15 of 16 are kept by no head from distance 16 on; use stride 8,
        or offset: h, or 16 KV heads", each with its price."""
        verdict = self.verdict
        text = f"{verdict.found}: {verdict.note}" if verdict.witness else f"{verdict.proof}: {verdict.note}"
        what = "; ".join(str(entry) for entry in self.missing[:3]) or text
        far = self.missing[-1] if self.missing else None
        if far is not None and far.d_to is None:
            what += f" ({far.share:.1%} of all old blocks)"
        text = f"{self.subject}: {what}"
        if not self.mends or self.price is None:
            return text
        use = ", or ".join(f"{mend} ({mend.price})" for mend in self.mends)
        return f"{text}; use {use}: KV cache and kept pairs at {counted(self.price.length, 'token')}, now {self.price}"


def explanations(
    classes: Classes,
    verdicts: Iterable[Verdict],
    pattern: Pattern | None = None,
    length: int = LENGTH,
    *,
    mended: dict[tuple[str, str], tuple[Mend, ...]] | None = None,
    name_layers: bool = True,
) -> tuple[str, ...]:
    """One line for each reason why a verdict fails or is undecided. Layers with the same reason share a line that names
    them. `mended` keeps the mends of a (property, scope) from one call to the next."""
    of = {} if mended is None else mended
    layers: dict[str, list[int]] = {}
    for verdict in verdicts:
        key = (verdict.property, verdict.scope)
        told = explain(classes, verdict, pattern, of.get(key), length)
        of[key] = told.mends
        by_default = DEFAULT if pattern and pattern.promises is None and verdict.property == "rows" else ""
        layers.setdefault(f"{told}{by_default}", []).extend(verdict.layers)
    many = name_layers and len(layer_classes(classes)) > 1
    return tuple(f"layers {runs(where)}: {text}" if many else text for text, where in layers.items())


def explain(
    classes: Classes,
    verdict: Verdict,
    pattern: Pattern | None = None,
    mended: tuple[Mend, ...] | None = None,
    length: int = LENGTH,
) -> Explanation:
    """The explanation of a verdict that does not hold. Mends need the pattern file, and are looked for unless `mended`
    has them."""
    kept = _kept(classes, verdict)
    strides = strides_of(kept)
    words = []
    if strides:
        words.append(f"stride{'s' if len(strides) > 1 else ''} {', '.join(map(str, strides[:6]))}")
    shape = classes.shape(verdict.layers[0] if verdict.layers else 0)
    few = shape.kv_heads < shape.heads
    scope = counted(shape.kv_heads, "KV head") if few else counted(shape.heads, "head")
    if verdict.property == "coverage" and verdict.scope == "group" and verdict.heads:
        scope = f"KV head {verdict.heads[0] // shape.group}'s {counted(shape.group, 'query head')}"
    elif verdict.property in ("rows", "kv") and verdict.heads:
        scope = f"head {verdict.heads[0]}"
    subject = (", " if scope.startswith("head") else " with ").join([*words, scope])
    failing = verdict.property == "coverage" and verdict.holds is False
    gaps = missing(kept, classes.causal, classes.block) if failing else ()
    if mended is None:
        mended = mends(pattern, verdict, length=length) if pattern is not None and verdict.holds is False else ()
    return Explanation(subject, gaps, mended, verdict, price(classes, length) if mended else None)


def _kept(classes: Classes, verdict: Verdict) -> tuple[Layout, ...]:
    layers = verdict.layers if verdict.scope == "model" else verdict.layers[:1]
    rows = [classes.of[layer] for layer in layers]
    numbers = dict.fromkeys(row[head] for row in rows for head in verdict.heads or range(len(row)) if head < len(row))
    return tuple(classes.layouts[k] for k in numbers)
