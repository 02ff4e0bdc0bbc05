"""The fewest changes to a pattern file that would make a broken property hold, each proved before it is shown.

Changes are tried on the file itself: the YAML is changed, loaded, resolved and proved again, so what is shown can be
typed in as it stands. Single changes come first; pairs only when no single one helps.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from patterncc.analysis.costs.price import LENGTH, Price, price
from patterncc.analysis.geometry.budget import Budget
from patterncc.analysis.verdict import Verdict
from patterncc.analysis.verify import prove
from patterncc.errors import PatternError
from patterncc.ir.classes import Classes
from patterncc.passes import lower

if TYPE_CHECKING:
    from patterncc.language import Pattern
    from patterncc.language.shape import Shape

MOST = 5  # mends that are listed
TRIES = 60  # changed files that are proved: counted, not timed, so that a busy machine finds the same
LAYOUTS = 960  # layouts in all of them: many layouts leave fewer tries
QUICK = Budget(
    sieve=1 << 16, scan=1 << 18, nodes=200, meetings=1 << 15, columns=500, rows=64, side=300, lengths=1 << 22
)


@dataclass(frozen=True)
class Change:
    """One edit: its text, and the keys that it sets in the file, as (path, value). `model`: after it, all layers
    together cover everything. `other`: it needs a model with another number of KV heads."""

    text: str
    edits: tuple[tuple[tuple[str | int, ...], Any], ...]
    kind: str
    model: bool = False
    other: bool = False


@dataclass(frozen=True)
class Mend:
    """Changes that were proved to make the property hold, the changed file, and what it costs."""

    changes: tuple[str, ...]
    source: str
    price: Price

    def __str__(self) -> str:
        return " and ".join(self.changes)


def mends(pattern: Pattern, verdict: Verdict, length: int = LENGTH) -> tuple[Mend, ...]:
    """Up to `MOST` mends: changes after which the verdict's property holds at its scope in every layer.

    They are ordered by the number of changes, then by the KV cache that is kept at `length` tokens, then by the work;
    one of each kind is listed. Next come mends that let all layers together cover everything (`coverage: model`) by an
    offset that rotates with the layer. Mends that need another model come last.
    """
    import yaml

    text = yaml.safe_load(pattern.source)  # it has been through the strict loader: no aliases, tags or doubled keys
    singles = list(_changes(pattern, text, verdict))
    found: list[tuple[tuple[Any, ...], Mend]] = []
    kinds: set[str] = set()
    tries = min(TRIES, LAYOUTS // len(lower(pattern).layouts))
    for size in (1, 2):
        for changes in combinations(singles, size):
            of = sorted({change.kind for change in changes})
            kind = " + ".join(of)
            if kind in kinds or (size == 2 and (len(of) == 1 or any(k in kinds or k.startswith("dense") for k in of))):
                continue
            if tries == 0:
                break
            tries -= 1
            scope = "model" if any(change.model for change in changes) else verdict.scope
            new = _changed(text, changes)
            classes = _proved(pattern, new, verdict.property, scope)
            if classes is not None:
                kinds.add(kind)
                cost = price(classes, length)
                beside = any(change.other for change in changes), any(change.model for change in changes)
                order = (*beside, cost.kv_bytes, cost.density, len(found))
                source = yaml.safe_dump(new, sort_keys=False)
                found.append((order, Mend(tuple(change.text for change in changes), source, cost)))
        if any(not kind.startswith("dense") for kind in kinds):
            break
    return tuple(mend for _, mend in sorted(found, key=lambda each: each[0])[:MOST])


def _proved(pattern: Pattern, new: dict[str, Any], property: str, scope: str) -> Classes | None:
    """The changed file's classes, if it is a pattern for which the property holds."""
    from pydantic import ValidationError

    from patterncc.language import Pattern as Read

    try:
        changed = Read.model_validate(new)
        changed._folder = pattern.folder  # type: ignore[reportPrivateUsage]
        classes = lower(changed)
    except (ValidationError, PatternError, ValueError):
        return None
    return classes if all(v.holds is True for v in prove(classes, property, scope, QUICK)) else None


def _changed(text: dict[str, Any], changes: tuple[Change, ...]) -> dict[str, Any]:
    new = copy.deepcopy(text)
    for change in changes:
        for path, value in change.edits:
            *parents, last = path
            at: Any = new
            for key in parents:
                at = at[key]
            if isinstance(at, list):
                at[int(last) :] = [value, *at[int(last) + 1 :]]  # one past the end appends
            else:
                at[last] = value
    return new


def _changes(pattern: Pattern, text: dict[str, Any], verdict: Verdict) -> Iterator[Change]:
    """The edits worth trying, the mildest first."""
    lists: list[tuple[str | int, ...]] = [("shards",)] if text.get("shards") else []
    lists += [("layouts", n, "shards") for n in range(len(text.get("layouts") or ()))]
    per_entry: list[list[Change]] = []
    several = sum(not entry.get("dense") for where in lists for entry in _at(text, where)) > 1
    for where in lists:
        entries = _at(text, where)
        layers = f" of layers {_at(text, where[:-1])['layers']}" if len(lists) > 1 and len(where) > 1 else ""
        for n, entry in enumerate(entries):
            heads = "" if entry.get("heads") == "all" and layers else f" for heads {entry.get('heads')}"
            whose = f"{heads}{layers if heads else layers.replace(' of', ' for')}" if several else ""
            if verdict.property == "coverage" and verdict.scope in ("layer", "model") and pattern.layers > 1:
                per_entry.append(list(_turning((*where, n), entry, whose, pattern, text, verdict.scope)))
            per_entry.append(list(_entry_changes((*where, n), entry, whose)))
        size = _shape(pattern, where)
        if all(isinstance(entry, dict) and entry.get("heads") == "all" for entry in entries) and size.heads > 1:
            last = size.heads - 1
            edits = (((*where, 0, "heads"), "rest"), ((*where, len(entries)), {"heads": last, "dense": True}))
            per_entry.append([Change(f"head {last} dense{layers}", edits, f"dense {where}")])
    tame = [change for changes in per_entry for change in changes if not change.kind.startswith("dense")]
    yield from tame
    own = [
        ("layouts", n) for n, layout in enumerate(pattern.layouts) if layout.model_fields_set & {"heads", "kv_heads"}
    ]
    for where in [(), *own] if text.get("shards") or not own else own:
        size = _shape(pattern, where)
        layers = f" in layers {_at(text, where)['layers']}" if where else ""
        for more in (m for m in range(size.kv_heads + 1, size.heads + 1) if size.heads % m == 0):
            yield Change(f"{more} KV heads{layers}", (((*where, "kv_heads"), more),), f"kv_heads {where}", other=True)
    yield from (change for changes in per_entry for change in changes if change.kind.startswith("dense"))


def _shape(pattern: Pattern, where: tuple[str | int, ...]) -> Shape:
    """The sizes of the layers whose shards are below this path."""
    from patterncc.language.shape import shape_of

    return shape_of(pattern, pattern.layouts[int(where[1])] if where[:1] == ("layouts",) else None)


def _at(text: dict[str, Any], path: tuple[str | int, ...]) -> Any:
    for key in path:
        text = text[key]  # type: ignore[index]
    return text


def _entry_changes(where: tuple[str | int, ...], entry: dict[str, Any], whose: str) -> Iterator[Change]:
    """Changes of one entry of `shards`: a smaller stride, another offset or anchor, no bounds, a wider window."""
    if entry.get("dense"):
        return
    places = _places(where, entry)
    for path, part, name in places:
        stride = part[name]
        if isinstance(stride, int):
            for smaller in (s for s in range(stride // 2, 1, -1) if stride % s == 0):
                yield Change(f"{name} {smaller}{whose}", (((*path, name), smaller),), f"stride {path}")
        for offset in _offsets(part.get("offset", 0)):
            yield Change(f"offset: {offset}{whose}", (((*path, "offset"), offset),), f"offset {path}")
        if part.get("anchor") == "query":
            yield Change(f"anchor: key{whose}", (((*path, "anchor"), "key"),), f"anchor {path}")
        if "from" in part:
            yield Change(f"from: 0{whose}", (((*path, "from"), 0),), f"range {path}")
        if "to" in part:
            edit = {key: value for key, value in part.items() if key != "to"}
            yield Change(f"no `to`{whose}", ((path, edit),), f"range {path}")
    local = entry.get("local")
    starts = [part["from"] for _, part, _ in places if isinstance(part.get("from"), int)]
    for blocks in sorted({1, *starts} if local is None else set(starts)):
        if not isinstance(local, int) or blocks > local:
            yield Change(f"local: {blocks}{whose}", (((*where, "local"), blocks),), f"local {where}")


def _turning(
    where: tuple[str | int, ...],
    entry: dict[str, Any],
    whose: str,
    pattern: Pattern,
    text: dict[str, Any],
    scope: str,
) -> Iterator[Change]:
    """Changes to an offset that rotates with the layer: a KV head keeps few columns in each layer and all of them over
    several layers."""
    promise = ((("promises", "coverage"), "model"),) if "coverage" in (text.get("promises") or {}) else ()
    for path, part, name in _places(where, entry):
        stride, kv_heads = part[name], _shape(pattern, where).kv_heads
        if not isinstance(stride, int) or stride <= kv_heads or part.get("width", 1) != 1:
            continue
        turns = -(-stride // kv_heads)
        for layer in ("l", "l // 2"):  # of layers that take turns with others, every second
            offset = f"g + {kv_heads} * ({layer} % {turns})"
            offset = offset if stride % kv_heads == 0 else f"({offset}) % {stride}"
            text_of_change = f"offset: {offset}{whose}{' with coverage: model' * (scope == 'layer')}"
            yield Change(text_of_change, (((*path, "offset"), offset), *promise), f"turning {path}", model=True)


def _places(
    where: tuple[str | int, ...], entry: dict[str, Any]
) -> list[tuple[tuple[str | int, ...], dict[str, Any], str]]:
    """The strides of an entry, each as (path in the file, its mapping, the name of the key that holds its period)."""
    found = [(where, entry, "stride")] if "stride" in entry else []
    return [*found, *(((*where, "strides", n), part, "every") for n, part in enumerate(entry.get("strides") or ()))]


def _offsets(offset: Any) -> Iterator[str]:
    """Other offsets to try: the same one counted by query head instead of KV head, and `g` and `h` alone."""
    text = str(offset)
    by_head = "".join("h" if c == "g" else c for c in text)
    for candidate in dict.fromkeys([by_head, "h", "g"]):
        if candidate != text and ("h" in candidate or "g" in candidate):
            yield candidate
