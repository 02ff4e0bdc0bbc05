"""Every head of every layer to its shard, every shard to plain numbers; what cannot be is reported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FolderPath
from typing import TYPE_CHECKING, NoReturn

from patterncc.errors import Diagnostic, PatternError
from patterncc.language.claimed import Claimed
from patterncc.language.claims import Claims, Reporter, claim, named
from patterncc.language.document import BAD, Path
from patterncc.language.entry import Entry
from patterncc.language.limits import MOST_SHARDS
from patterncc.language.resolved import DENSE, Resolved
from patterncc.language.shape import SIZES, Shape, check_shape, shape_of

if TYPE_CHECKING:
    from patterncc.language.shard import Shard
    from patterncc.language.written import Written


class Resolution:
    """The shape of each layer, and the entry that claims each head of it. Shards are evaluated when asked for, once
    each."""

    def __init__(self, shapes: Sequence[Shape], layouts: Sequence[Sequence[tuple[Entry, int]] | None]) -> None:
        self.shapes, self._layouts = tuple(shapes), tuple(layouts)
        self._dense = {heads: (DENSE,) * heads for heads in {shape.heads for shape in shapes}}
        self._tuples: dict[tuple[int, int | None], tuple[Resolved, ...]] = {}

    def shards_of(self, layer: int) -> tuple[Resolved, ...]:
        """What all heads of one layer keep."""
        entries = self._layouts[layer]
        if entries is None:
            return self._dense[self.shapes[layer].heads]
        group = self.shapes[layer].group
        key = (id(entries), layer if any(entry.uses_layer for entry, _ in entries) else None)
        if key not in self._tuples:
            self._tuples[key] = tuple(
                entry.shard(head, head // group, layer, position) for head, (entry, position) in enumerate(entries)
            )
        return self._tuples[key]

    def shard(self, layer: int, head: int) -> Resolved:
        """What one head of one layer keeps."""
        entries = self._layouts[layer]
        if entries is None:
            return DENSE
        entry, position = entries[head]
        return entry.shard(head, head // self.shapes[layer].group, layer, position)


def resolve(pattern: Written, folder: FolderPath | None, report: Reporter) -> Resolution | None:
    """The resolution of a pattern, every shard of which has been evaluated once; None when that cannot be told."""
    layers, own = pattern.layers, check_shape(shape_of(pattern), frozenset(), (), report)
    plans = _layers(pattern, layers, report)
    shapes = [_shape(pattern, path, own, report) for path, _, _ in plans]
    sizes = [own.heads] * (layers if layers is not BAD else 0)
    for shape, (_, _, chosen) in zip(shapes, plans, strict=True):
        for layer in chosen:
            sizes[layer] = shape.heads
    if BAD not in sizes and sum(sizes) > MOST_SHARDS:
        heads = (
            f"{sizes[0]} heads in {layers} layers are" if len(set(sizes)) == 1 else f"the heads of {layers} layers are"
        )
        report(("layers",), f"{heads} {sum(sizes)}; the most is {MOST_SHARDS}")
        layers, plans = BAD, [(path, shards, ()) for path, shards, _ in plans]
    of_layer: list[Sequence[tuple[Entry, int]] | None] = [None] * (layers if layers is not BAD else 0)
    shape_of_layer = [own] * len(of_layer)
    for shape, (path, shards, chosen) in zip(shapes, plans, strict=True):
        group = None if BAD in (shape.heads, shape.kv_heads) else shape.group
        owners: dict[int, tuple[Entry, int]] = {}
        for n, shard, chosen_heads in _heads(path, shards, shape.heads, report):
            entry = Entry(Claimed(shard, (*path, n), chosen_heads, pattern, shape.heads, folder, report))
            entry.check(chosen, group)
            owners |= {head: (entry, position) for position, head in enumerate(chosen_heads or ())}
        of_head = [owners[head] for head in sorted(owners)]
        for layer in chosen:
            of_layer[layer], shape_of_layer[layer] = of_head, shape
    if layers is BAD or any(BAD in (shape.heads, shape.kv_heads) for shape in (own, *shapes)):
        return None
    return Resolution(shape_of_layer, of_layer)


def _shape(pattern: Written, path: Path, own: Shape, report: Reporter) -> Shape:
    """The shape of the layers whose shards stand at this path."""
    if path[0] != "layouts":
        return own
    layout = pattern.layouts[int(path[1])]
    written = frozenset(layout.model_fields_set)
    return check_shape(shape_of(pattern, layout), written, path[:2], report) if written & {*SIZES, "sinks"} else own


def raising(path: Path, message: str, help: str | None = None, **_: object) -> NoReturn:
    """A report for patterns that were not read from a file: the first mistake is raised."""
    raise PatternError([Diagnostic(f"{'.'.join(map(str, path))}: {message}", help=help)])


def _layers(pattern: Written, layers: int, report: Reporter) -> list[tuple[Path, Sequence[Shard], tuple[int, ...]]]:
    """For each list of shards its path and its layers (none when that is not known); the other layers are dense."""
    selectors = [((("dense_layers",), pattern.dense_layers))] if pattern.dense_layers is not None else []
    layouts = pattern.layouts if pattern.layouts is not BAD else ()
    selectors += [(("layouts", n, "layers"), layout.layers) for n, layout in enumerate(layouts) if layout is not BAD]
    known = layers is not BAD
    claims = claim(selectors, layers, "layer", report) if known else Claims((None,) * len(selectors), ())
    of_path = dict(zip((path for path, _ in selectors), claims.chosen, strict=True))
    plans: list[tuple[Path, Sequence[Shard], tuple[int, ...]]] = []
    for n, layout in enumerate(layouts):
        if layout is not BAD:
            plans.append((("layouts", n, "shards"), layout.shards, of_path[("layouts", n, "layers")] or ()))
    if pattern.shards is BAD or pattern.shards:
        left = claims.unclaimed if claims.complete and pattern.layouts is not BAD else ()
        plans.append((("shards",), pattern.shards, left))
    elif known and claims.complete and claims.unclaimed and pattern.layouts is not BAD:
        if selectors:
            message = f"{named('layer', claims.unclaimed)} claimed by nothing"
            report((), message, "give them `shards`, or name them in `layouts` or `dense_layers`", key=True)
        else:
            report(
                (), "shards is missing", "write `shards:` and below it `- heads: all`, with what they keep", key=True
            )
    return plans


def _heads(
    path: Path, shards: Sequence[Shard], heads: int, report: Reporter
) -> list[tuple[int, Shard, tuple[int, ...] | None]]:
    """Each shard with its place in the list and the heads that it claims (None when that is not known)."""
    if shards is BAD:
        return []
    known = [(n, shard) for n, shard in enumerate(shards) if shard is not BAD]
    if heads is BAD:
        return [(n, shard, None) for n, shard in known]
    selectors = [((*path, n, "heads"), shard.heads) for n, shard in known]
    claims = claim(selectors, heads, "head", report)
    if claims.unclaimed and claims.complete and len(known) == len(shards):
        report(path, f"{named('head', claims.unclaimed)} claimed by no entry",
               "name them in an entry, or add one with `heads: rest`", key=True)  # fmt: skip
    return [(n, shard, chosen) for (n, shard), chosen in zip(known, claims.chosen, strict=True)]
