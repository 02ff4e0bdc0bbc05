"""One entry of `shards`: what was written, the heads that it claims, its mask, its evaluated shards."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path as FolderPath
from typing import TYPE_CHECKING, Any

from patterncc.errors import counted
from patterncc.language.claims import Reporter
from patterncc.language.document import BAD, Path
from patterncc.language.evaluate import evaluate
from patterncc.language.expression import Expression
from patterncc.language.limits import MOST_WORK
from patterncc.language.masks import MaskError, read_mask
from patterncc.language.quantities import Indices, Length
from patterncc.language.resolved import Resolved
from patterncc.language.token_masks import MaskWarning, token_level

if TYPE_CHECKING:
    import numpy as np

    from patterncc.language.model import Pattern
    from patterncc.language.shard import Shard

PARTS = ("local", "stride", "strides", "sink", "chunk", "globals", "random", "mask")


class Entry:
    """An entry, the heads that it claims (None: unknown), and its shards, each evaluated once."""

    def __init__(
        self,
        shard: Shard,
        path: Path,
        heads: Sequence[int] | None,
        pattern: Pattern,
        layer_heads: int,
        folder: FolderPath | None,
        report: Reporter,
    ) -> None:
        self.written, self.path, self.heads, self.report = shard, path, heads, report
        self.causal, self.block = pattern.causal, pattern.block
        self.mask = self._load_mask(folder, layer_heads)
        names = frozenset[str]().union(*(e.names for e in _expressions(shard)))
        cycles = [shard.offset, *(stride.offset for stride in _known(shard.strides))]
        self._uses = tuple(name in names for name in "hgl")
        self._by_head = any(len(offsets) > 1 for offsets in _known(cycles)) or (
            self.mask is not None and self.mask.ndim == 3
        )
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
            self._shards[key] = evaluate(self, at, position)
        return self._shards[key]

    def work(self, layers: int) -> int:
        """The cost of evaluating the entry for `layers` layers: 16 for each stride and each shard, 1 for each index."""
        heads = len(self.heads or ())
        shards = (heads if self._by_head or self._uses[0] or self._uses[1] else 1) * (layers if self._uses[2] else 1)
        strides, ends = _known(self.written.strides), self.written.globals
        indices = [] if ends is None or ends is BAD else [*_known(ends.rows), *_known(ends.columns)]
        return shards * (16 + 16 * len(strides) + sum(item.count for item in _known(indices)))

    def check(self, layers: Sequence[int], group: int | None) -> None:
        """Report what is wrong with the entry in any of its heads and layers, each key's first mistake."""
        self._check_parts()
        if self.work(len(layers)) > MOST_WORK:
            message = f"too many different shards: {len(self.heads or ())} heads in {len(layers)} layers"
            self._note((), message, "fewer strides or globals, or expressions over fewer of h, g and l", key=True)
        elif not layers or not self.heads or group is None:
            evaluate(self, None, 0)
        else:
            for layer in layers if self._uses[2] else layers[:1]:
                for position, head in enumerate(self.heads):
                    self.shard(head, head // group, layer, position)

    def _check_parts(self) -> None:
        """Report parts that do not go together."""
        shard, given = self.written, self.written.model_fields_set
        parts = [part for part in PARTS if part in given]
        if shard.dense is True:
            for part in [*parts, *(part for part in ("offset", "width") if part in given)]:
                help = f"remove {part}, or `dense: true`"
                self._note((part,), "`dense: true` keeps everything and stands alone", help, key=True)
        elif not parts and not given & {"dense", "offset", "width"}:
            self._note((), "this entry keeps nothing", f"write one of dense, {', '.join(PARTS)}", key=True)
        if "stride" not in given and shard.dense is not True:
            for part in [part for part in ("offset", "width") if part in given]:
                self._note((part,), f"{part} without a stride", "add `stride: N` to the entry", key=True)
        sides = shard.local
        if sides is not None and sides is not BAD and not isinstance(sides, Length):
            if self.causal is True:
                help = "write `local: N`, or `causal: false` at the top of the file"
                self._note(("local",), "before and after are for patterns that are not causal", help)
            elif not sides.model_fields_set:
                self._note(("local",), "local holds neither before nor after", "write `local: {before: 4, after: 4}`")
        ends = shard.globals
        if ends is not None and ends is not BAD and not ends.model_fields_set:
            self._note(("globals",), "globals holds neither rows nor columns", "write `globals: {columns: [0]}`")

    def _note(self, path: Path, message: str, help: str | None = None, *, key: bool = False) -> None:
        self.report((*self.path, *path), message, help, key=key)

    def _load_mask(self, folder: FolderPath | None, heads: int) -> np.ndarray | None:
        """The mask, bool [rows, columns] or [the layer's heads, rows, columns]."""
        name = self.written.mask
        if name is None or name is BAD:
            return None
        try:
            mask = read_mask(name, folder)
        except MaskError as error:
            self._note(("mask",), error.message, error.help)
            return None
        if self.block is not BAD and (doubt := token_level(mask, name, self.block)):
            warnings.warn(doubt, MaskWarning, stacklevel=1)  # who reads it twice is told once
        if mask.ndim == 2:
            return mask
        if heads is BAD or self.heads is None:
            return None
        if len(mask) == heads:
            return mask
        if len(mask) == len(self.heads):  # one for each of the entry's heads, in their order
            import numpy as np

            of_head = np.zeros((heads, *mask.shape[1:]), dtype=np.bool_)
            of_head[list(self.heads)] = mask
            return of_head
        help = f"it must be {heads}, the layer's" + (
            f", or {len(self.heads)}, the entry's" if len(self.heads) != heads else ""
        )
        self._note(("mask",), f"the mask is for {counted(len(mask), 'head')}", help)
        return None


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
