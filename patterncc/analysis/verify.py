"""Prove a property of a pattern, for every length: the one entry to all proofs.

Which verdicts decide (the exit code of `patterncc verify`, and whether a compile goes on):

* `promises`: every verdict, since only what the file promises is proved.
* a property by name: those at its deciding scopes. For coverage that is the scope which the file promises, and `layer`
  without a promise: a layer whose heads together miss old tokens is what people look for, while most good patterns
  miss pairs within a group. For kv: the promised scope, else `head`. The other scopes are reported all the same.
* `all`: what the file promises. The other properties are information: a sliding window is not broken by having no
  far context.
An undecided verdict decides like a failure: "all held" may only be said of what is proved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any

from patterncc.analysis.costs.balance import balance
from patterncc.analysis.geometry.budget import DEFAULT, Budget
from patterncc.analysis.proofs import coverage as _coverage
from patterncc.analysis.proofs import kv as _kv
from patterncc.analysis.proofs.causal import causal
from patterncc.analysis.proofs.reach.reach import reach
from patterncc.analysis.proofs.rows import rows
from patterncc.analysis.verdict import Verdict
from patterncc.ir.classes import Classes

SCOPES: dict[str, tuple[str, ...]] = {
    "coverage": _coverage.SCOPES,
    "rows": ("head",),
    "kv": _kv.SCOPES,
    "reach": ("model",),
    "causal": ("layer",),
    "balance": ("layer",),
}
PROPERTIES = (*SCOPES, "promises", "all")
DEFAULT_PROMISES: Mapping[str, Any] = {"rows": "nonempty"}


def verify(
    classes: Classes,
    property: str,
    scopes: Iterable[str] | None = None,
    budget: Budget | None = None,
    promises: Mapping[str, Any] | None = None,
) -> tuple[Verdict, ...]:
    """The verdicts on a property, one a layer class and scope; on `promises` or `all`, of several properties.

    `scopes` limits coverage and kv to some of their scopes (others have one); `promises` is the file's (None:
    non-empty rows only).
    """
    limits = budget or DEFAULT
    if property == "promises":
        return prove_promises(classes, promises, limits)
    verdicts: list[Verdict] = []
    for name in SCOPES if property == "all" else (property,):
        for scope in SCOPES[name]:
            if scopes is None or scope in scopes or len(SCOPES[name]) == 1:
                verdicts += prove(classes, name, scope, limits)
    return tuple(verdicts)


def prove(
    classes: Classes, property: str, scope: str, budget: Budget = DEFAULT, within: int | None = None
) -> tuple[Verdict, ...]:
    """The verdicts on one property at one scope, with the time they took. `within`: reach in so many layers."""
    start = perf_counter()
    if property == "coverage":
        verdicts = _coverage.coverage(classes, scope, budget)
    elif property == "kv":
        verdicts = _kv.kv(classes, scope, budget)
    elif property == "rows":
        verdicts = rows(classes, budget)
    elif property == "reach":
        verdicts = reach(classes, budget, within)
    elif property == "causal":
        verdicts = causal(classes, budget)
    elif property == "balance":
        verdicts = balance(classes)
    else:
        raise ValueError(f"no property is called {property!r}: {', '.join(PROPERTIES)}")
    each = (perf_counter() - start) / max(len(verdicts), 1)
    return tuple(replace(verdict, seconds=each) for verdict in verdicts)


def prove_promises(
    classes: Classes, promises: Mapping[str, Any] | None, budget: Budget = DEFAULT
) -> tuple[Verdict, ...]:
    """The verdicts on what the file promises; a file without `promises` promises that no row is empty.

    >>> from patterncc.ir.layout import Layout
    >>> one = Classes("x", 64, True, 64, 1, 1, (Layout.parse("d<4"),), ((0,),))
    >>> [(v.property, v.holds) for v in prove_promises(one, {"rows": "nonempty", "coverage": "layer"})]
    [('rows', True), ('coverage', False)]
    """
    verdicts: list[Verdict] = []
    for name, value in (DEFAULT_PROMISES if promises is None else promises).items():
        for scope in promised_scopes(name, value):
            verdicts += prove(classes, name, scope, budget, int(value) if name == "reach" else None)
    return tuple(verdicts)


def prove_for_caches(classes: Classes, proved: Iterable[Verdict] = ()) -> tuple[Verdict, ...]:
    """What a compact cache asks of every layer class: whether any head takes up a column that it has dropped. Where
    `proved` has these verdicts they are taken from it. None for a pattern whose rows look ahead, which has no cache.

    >>> from patterncc.ir.layout import Layout
    >>> one = Classes("x", 64, True, 64, 1, 1, (Layout.parse("d<4"),), ((0,),))
    >>> [(v.property, v.scope, v.holds) for v in prove_for_caches(one)]
    [('kv', 'head', True)]
    """
    if not classes.causal:
        return ()
    return tuple(v for v in proved if (v.property, v.scope) == ("kv", "head")) or prove(classes, "kv", "head")


def promised_scopes(name: str, value: Any) -> tuple[str, ...]:
    """The scopes that a promise speaks of.

    >>> promised_scopes("coverage", "model"), promised_scopes("kv", "monotone"), promised_scopes("kv", "group")
    (('model',), ('head',), ('group',))
    """
    return (value,) if value in SCOPES[name] else SCOPES[name][:1]


def failed(
    verdicts: Iterable[Verdict], property: str, promises: Mapping[str, Any] | None = None
) -> tuple[Verdict, ...]:
    """The verdicts that make `verify` fail, by the rule above: exit code 1 iff there are any."""
    promised = DEFAULT_PROMISES if promises is None else promises
    bad = []
    for verdict in verdicts:
        kept = verdict.property in promised
        scopes = promised_scopes(verdict.property, promised.get(verdict.property))
        asked = kept if property == "all" else verdict.property == property
        decides = property == "promises" or (asked and verdict.scope in scopes)
        if decides and verdict.holds is not True:
            bad.append(verdict)
    return tuple(bad)
