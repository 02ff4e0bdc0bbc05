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

from patterncc.analysis.geometry.budget import Budget
from patterncc.analysis.verdict import Verdict
from patterncc.analysis.verify import prove
from patterncc.errors import PatternError
from patterncc.ir.layout import Classes

if TYPE_CHECKING:
    from patterncc.language import Pattern

TRIES = 60  # changed files that are proved
QUICK = Budget(scan=1 << 22, nodes=2_000, meetings=1 << 17, columns=1_000, rows=64, side=600)


@dataclass(frozen=True)
class Change:
    """One edit: in words, and the keys of the file it sets (path, value)."""

    text: str
    edits: tuple[tuple[tuple[str | int, ...], Any], ...]
    kind: str


@dataclass(frozen=True)
class Mend:
    """Changes that were proved to make the property hold, and the changed file."""

    changes: tuple[str, ...]
    source: str

    def __str__(self) -> str:
        return " and ".join(self.changes)


def mends(pattern: Pattern, verdict: Verdict, limit: int = 4) -> tuple[Mend, ...]:
    """Changes after which the verdict's property holds at its scope in every layer, the fewest first; one of a kind."""
    import yaml

    text = yaml.safe_load(pattern.source)  # it has been through the strict loader: no aliases, tags or doubled keys
    singles = list(_changes(pattern, text))
    found: list[Mend] = []
    kinds: set[str] = set()
    tries = 0
    for size in (1, 2):
        for changes in combinations(singles, size):
            of = sorted({change.kind for change in changes})
            kind = " + ".join(of)
            if kind in kinds or (size == 2 and (len(of) == 1 or any(k in kinds or k.startswith("dense") for k in of))):
                continue
            if tries >= TRIES or len(found) >= limit:
                break
            tries += 1
            source = _changed(text, changes)
            if _holds(pattern, source, verdict):
                kinds.add(kind)
                found.append(Mend(tuple(change.text for change in changes), source))
        if any(not kind.startswith("dense") for kind in kinds):
            break
    return tuple(found)


def classes_of(pattern: Pattern) -> Classes:
    """The pattern's classes, as the compiler makes them."""
    from patterncc.passes.merge_heads import merge_heads
    from patterncc.passes.normalise import normalise
    from patterncc.passes.resolve_heads import resolve_heads

    return normalise(merge_heads(pattern, resolve_heads(pattern)))


def _holds(pattern: Pattern, source: str, verdict: Verdict) -> bool:
    from patterncc.language import loads

    try:
        classes = classes_of(loads(source, file=pattern.file, folder=pattern.folder))
    except PatternError:
        return False
    return all(v.holds is True for v in prove(classes, verdict.property, verdict.scope, QUICK))


def _changed(text: dict[str, Any], changes: tuple[Change, ...]) -> str:
    import yaml

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
    return yaml.safe_dump(new, sort_keys=False)


def _changes(pattern: Pattern, text: dict[str, Any]) -> Iterator[Change]:
    """The edits worth trying, the mildest first."""
    lists: list[tuple[str | int, ...]] = [("shards",)] if text.get("shards") else []
    lists += [("layouts", n, "shards") for n in range(len(text.get("layouts") or ()))]
    per_entry: list[list[Change]] = []
    for where in lists:
        entries: Any = text
        for key in where:
            entries = entries[key]
        for n, entry in enumerate(entries):
            per_entry.append(list(_entry_changes((*where, n), entry)))
        if all(isinstance(entry, dict) and entry.get("heads") == "all" for entry in entries) and pattern.heads > 1:
            last = pattern.heads - 1
            edits = (((*where, 0, "heads"), "rest"), ((*where, len(entries)), {"heads": last, "dense": True}))
            per_entry.append([Change(f"head {last} dense", edits, f"dense {where}")])
    tame = [change for changes in per_entry for change in changes if not change.kind.startswith("dense")]
    yield from tame
    for more in (m for m in range(pattern.kv_heads + 1, pattern.heads + 1) if pattern.heads % m == 0):
        yield Change(f"{more} KV heads", ((("kv_heads",), more),), "kv_heads")
    yield from (change for changes in per_entry for change in changes if change.kind.startswith("dense"))


def _entry_changes(where: tuple[str | int, ...], entry: dict[str, Any]) -> Iterator[Change]:
    if entry.get("dense"):
        return
    places: list[tuple[tuple[str | int, ...], dict[str, Any], str]] = []
    if "stride" in entry:
        places.append((where, entry, "stride"))
    places += [((*where, "strides", n), part, "every") for n, part in enumerate(entry.get("strides") or ())]
    for path, part, name in places:
        stride = part[name]
        if isinstance(stride, int):
            for smaller in (s for s in range(stride // 2, 1, -1) if stride % s == 0):
                yield Change(f"{name} {smaller}", (((*path, name), smaller),), f"stride {path}")
        for offset in _offsets(part.get("offset", 0)):
            yield Change(f"offset: {offset}", (((*path, "offset"), offset),), f"offset {path}")
        if part.get("anchor") == "query":
            yield Change("anchor: key", (((*path, "anchor"), "key"),), f"anchor {path}")
        if "from" in part:
            yield Change("from: 0", (((*path, "from"), 0),), f"range {path}")
        if "to" in part:
            edit = {key: value for key, value in part.items() if key != "to"}
            yield Change("no `to`", ((path, edit),), f"range {path}")
    local = entry.get("local")
    starts = [part["from"] for _, part, _ in places if isinstance(part.get("from"), int)]
    for blocks in sorted({1, *starts} if local is None else set(starts)):
        if not isinstance(local, int) or blocks > local:
            yield Change(f"local: {blocks}", (((*where, "local"), blocks),), f"local {where}")


def _offsets(offset: Any) -> Iterator[str]:
    """Other offsets to try: counted by query head instead of KV head, and plainly by either."""
    text = str(offset)
    by_head = "".join("h" if c == "g" else c for c in text)
    for candidate in dict.fromkeys([by_head, "h", "g"]):
        if candidate != text and ("h" in candidate or "g" in candidate):
            yield candidate
