"""A broken property in a sentence that a person understands, with what would mend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patterncc.analysis.explain.mend import Mend, mends
from patterncc.analysis.geometry.missing import Missing, missing, strides_of
from patterncc.analysis.verdict import Verdict
from patterncc.ir.layout import Classes, Layout

if TYPE_CHECKING:
    from patterncc.language import Pattern


@dataclass(frozen=True)
class Explanation:
    """Why a verdict is what it is: the blocks that are missing (coverage), and proved mends."""

    subject: str
    missing: tuple[Missing, ...]
    mends: tuple[Mend, ...]
    verdict: Verdict

    def __str__(self) -> str:
        """E.g. "stride 16 with 8 KV heads: residues 8-15 of 16 are kept by no head from distance 16 on; use stride 8,
        or offset: h, or 16 KV heads"."""
        verdict = self.verdict
        said = f"{verdict.found}: {verdict.note}" if verdict.witness else f"{verdict.proof}: {verdict.note}"
        what = "; ".join(str(entry) for entry in self.missing[:3]) or said
        far = self.missing[-1] if self.missing else None
        if far is not None and far.d_to is None:
            what += f" ({far.share:.1%} of all old blocks)"
        text = f"{self.subject}: {what}"
        return f"{text}; use {', or '.join(str(mend) for mend in self.mends)}" if self.mends else text


def explain(classes: Classes, verdict: Verdict, pattern: Pattern | None = None) -> Explanation:
    """The explanation of a verdict that does not hold. Mends need the pattern file: none without it."""
    kept = _kept(classes, verdict)
    strides = strides_of(kept)
    words = []
    if strides:
        words.append(f"stride{'s' if len(strides) > 1 else ''} {', '.join(map(str, strides[:6]))}")
    few = classes.kv_heads < classes.heads
    scope = _count(classes.kv_heads, "KV head") if few else _count(classes.heads, "head")
    if verdict.property == "coverage" and verdict.scope == "group" and verdict.heads:
        scope = f"KV head {verdict.heads[0] // classes.group}'s {classes.group} query heads"
    elif verdict.property in ("rows", "kv") and verdict.heads:
        scope = f"head {verdict.heads[0]}"
    subject = (", " if scope.startswith("head") else " with ").join([*words, scope])
    failing = verdict.property == "coverage" and verdict.holds is False
    gaps = missing(kept, classes.causal, classes.block) if failing else ()
    found = mends(pattern, verdict) if pattern is not None and verdict.holds is False else ()
    return Explanation(subject, gaps, found, verdict)


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _kept(classes: Classes, verdict: Verdict) -> tuple[Layout, ...]:
    layers = verdict.layers if verdict.scope == "model" else verdict.layers[:1]
    heads = verdict.heads or tuple(range(classes.heads))
    numbers = dict.fromkeys(classes.of[layer][head] for layer in layers for head in heads)
    return tuple(classes.layouts[k] for k in numbers)
