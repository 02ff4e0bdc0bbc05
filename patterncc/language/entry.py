"""The shards of one entry, evaluated for the heads that it claims; parts that do not go together are reported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from patterncc.language.claimed import Claimed
from patterncc.language.document import BAD
from patterncc.language.evaluate import evaluate
from patterncc.language.expression import Expression
from patterncc.language.limits import MOST_WORK
from patterncc.language.quantities import Indices, Length
from patterncc.language.resolved import Resolved

PARTS = ("local", "stride", "strides", "sink", "chunk", "globals", "random", "mask")


class Entry:
    """The shards of an entry, each evaluated once."""

    def __init__(self, claimed: Claimed) -> None:
        self._claimed, self._written = claimed, claimed.shard
        mask, shard = claimed.mask, claimed.shard
        names = frozenset[str]().union(*(e.names for e in _expressions(shard)))
        cycles = [shard.offset, *(stride.offset for stride in _known(shard.strides))]
        self._uses = tuple(name in names for name in "hgl")
        self._by_head = any(len(offsets) > 1 for offsets in _known(cycles)) or (mask is not None and mask.ndim == 3)
        self._shards: dict[tuple[int, ...], Resolved] = {}

    @property
    def uses_layer(self) -> bool:
        """Whether its shards differ from layer to layer."""
        return self._uses[2]

    def shard(self, head: int, kv_head: int, layer: int, position: int) -> Resolved:
        """The shard of one head in one layer; `position` is the head's place among the entry's heads."""
        at = (head, kv_head, layer)
        key = tuple(x for x, used in zip(at, self._uses, strict=True) if used)
        key += (head, position) if self._by_head else ()
        if key not in self._shards:
            self._shards[key] = evaluate(self._claimed, at, position)
        return self._shards[key]

    def work(self, layers: int) -> int:
        """The cost of evaluating the entry for `layers` layers: 16 for each stride and each shard, 1 for each index."""
        heads = len(self._claimed.heads or ())
        shards = (heads if self._by_head or self._uses[0] or self._uses[1] else 1) * (layers if self._uses[2] else 1)
        strides, ends = _known(self._written.strides), self._written.globals
        indices = [] if ends is None or ends is BAD else [*_known(ends.rows), *_known(ends.columns)]
        return shards * (16 + 16 * len(strides) + sum(item.count for item in _known(indices)))

    def check(self, layers: Sequence[int], group: int | None) -> None:
        """Report what is wrong with the entry in any of its heads and layers, each key's first mistake."""
        self._check_parts()
        if self.work(len(layers)) > MOST_WORK:
            message = f"too many different shards: {len(self._claimed.heads or ())} heads in {len(layers)} layers"
            self._claimed.note(
                (), message, "fewer strides or globals, or expressions over fewer of h, g and l", key=True
            )
        elif not layers or not self._claimed.heads or group is None:
            evaluate(self._claimed, None, 0)
        else:
            for layer in layers if self._uses[2] else layers[:1]:
                for position, head in enumerate(self._claimed.heads):
                    self.shard(head, head // group, layer, position)

    def _check_parts(self) -> None:
        """Report parts that do not go together."""
        shard, given = self._written, self._written.model_fields_set
        parts = [part for part in PARTS if part in given]
        if shard.dense is True:
            for part in [*parts, *(part for part in ("offset", "width") if part in given)]:
                help = f"remove {part}, or `dense: true`"
                self._claimed.note((part,), "`dense: true` keeps everything and stands alone", help, key=True)
        elif not parts and not given & {"dense", "offset", "width"}:
            self._claimed.note((), "this entry keeps nothing", f"write one of dense, {', '.join(PARTS)}", key=True)
        if "stride" not in given and shard.dense is not True:
            for part in [part for part in ("offset", "width") if part in given]:
                self._claimed.note((part,), f"{part} without a stride", "add `stride: N` to the entry", key=True)
        sides = shard.local
        if sides is not None and sides is not BAD and not isinstance(sides, Length):
            if self._claimed.causal is True:
                help = "write `local: N`, or `causal: false` at the top of the file"
                self._claimed.note(("local",), "before and after are for patterns that are not causal", help)
            elif not sides.model_fields_set:
                self._claimed.note(
                    ("local",), "local holds neither before nor after", "write `local: {before: 4, after: 4}`"
                )
        ends = shard.globals
        if ends is not None and ends is not BAD and not ends.model_fields_set:
            self._claimed.note(
                ("globals",), "globals holds neither rows nor columns", "write `globals: {columns: [0]}`"
            )


def _known(values: Any) -> list[Any]:
    return [value for value in values if value is not BAD] if values is not BAD else []


def _expressions(value: Any) -> Iterator[Expression]:
    """Every expression of an entry."""
    if isinstance(value, Expression):
        yield value
    elif isinstance(value, Length):
        yield value.number
    elif isinstance(value, Indices):
        yield value.first
    elif isinstance(value, tuple):
        for item in value:  # type: ignore[reportUnknownVariableType]
            yield from _expressions(item)
    elif hasattr(value, "model_fields_set"):
        for name in type(value).model_fields:
            yield from _expressions(getattr(value, name))
