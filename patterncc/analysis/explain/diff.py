"""What changes from one pattern to another: token pairs, cost, and what is proved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from patterncc.analysis.costs.forecast import forecast
from patterncc.analysis.costs.price import LENGTH
from patterncc.analysis.geometry.budget import DEFAULT, Budget
from patterncc.analysis.proofs.compare import Comparison, compare
from patterncc.analysis.verdict import Verdict
from patterncc.analysis.verify import SCOPES, prove
from patterncc.ir.classes import Classes

SCORES = ("softcap", "scale")
PROVED = ("coverage", "rows", "kv", "reach")


@dataclass(frozen=True)
class Figures:
    """One figure of both patterns."""

    name: str
    a: float
    b: float


@dataclass(frozen=True)
class Turned:
    """A property whose verdict differs between the two patterns (None: undecided)."""

    property: str
    scope: str
    a: bool | None
    b: bool | None


@dataclass(frozen=True)
class Diff:
    """Two patterns compared by meaning, not by text."""

    a: str
    b: str
    comparison: Comparison
    length: int
    figures: tuple[Figures, ...] = ()
    turned: tuple[Turned, ...] = ()
    by_layer: tuple[tuple[int, tuple[int, ...]], ...] = field(default=())  # (layer, heads that differ)
    scores: tuple[tuple[str, float | None, float | None], ...] = ()  # softcap and scale where they differ: name, a, b

    @property
    def equal(self) -> bool | None:
        return self.comparison.equal

    def to_json(self) -> dict[str, Any]:
        """The form that `patterncc diff --json` prints; `scores` is there where softcap or scale differ."""
        only_a, only_b = self.comparison.only_in_a, self.comparison.only_in_b
        return {
            "equal": self.equal,
            "only_in_a": only_a.to_json() if only_a else None,
            "only_in_b": only_b.to_json() if only_b else None,
            "note": self.comparison.note,
            "differs": [{"layer": layer, "heads": list(heads)} for layer, heads in self.by_layer],
            **({"scores": {name: {"a": a, "b": b} for name, a, b in self.scores}} if self.scores else {}),
            "length": self.length,
            "figures": {f.name: {"a": f.a, "b": f.b} for f in self.figures},
            "verdicts": [{"property": t.property, "scope": t.scope, "a": t.a, "b": t.b} for t in self.turned],
        }


def diff(a: Classes, b: Classes, length: int = LENGTH, budget: Budget = DEFAULT) -> Diff:
    """The differences: first token pair each way, the heads that differ, density and KV bytes at `length`, verdicts."""
    found = compare(a, b, budget)
    layers = tuple(
        (layer, tuple(head for at, head in found.heads if at == layer))
        for layer in dict.fromkeys(at for at, _ in found.heads)
    )
    models = [forecast(classes, length).model for classes in (a, b)]
    names = ("density", "kv_bytes_kept", "kv_bytes_dense", "flops_forward")
    figures = tuple(Figures(name, models[0][name], models[1][name]) for name in names)
    turned = tuple(
        Turned(name, scope, *holds)
        for name in PROVED
        for scope in SCOPES[name]
        if (holds := tuple(_all(prove(classes, name, scope, budget)) for classes in (a, b)))[0] != holds[1]
    )
    scores = tuple(
        (name, own or None, other or None)
        for name in SCORES
        if (own := getattr(a, name)) != (other := getattr(b, name))
    )
    return Diff(a.name, b.name, found, length, figures, turned, layers, scores)


def _all(verdicts: tuple[Verdict, ...]) -> bool | None:
    """Whether all layers hold; None when that is open."""
    answers = [verdict.holds for verdict in verdicts]
    return False if False in answers else None if None in answers else True
