"""One entry of `shards`, evaluated for the heads and layers that it is for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path as FolderPath
from typing import TYPE_CHECKING, Any

from patterncc.spec import fields
from patterncc.spec.claims import Report
from patterncc.spec.expression import Expression, ExpressionError
from patterncc.spec.masks import MaskError, read_mask
from patterncc.spec.resolved import DENSE, Resolved, ResolvedStride
from patterncc.spec.source import BAD, Path

if TYPE_CHECKING:
    import numpy as np

    from patterncc.spec.model import Pattern, Shard

PARTS = ("local", "stride", "strides", "sink", "globals", "random", "mask")


class Entry:
    """An entry, the heads that it claims (None: unknown), and its shards, each evaluated once."""

    def __init__(
        self, shard: Shard, path: Path, heads: Sequence[int] | None, pattern: Pattern, folder: FolderPath | None, report: Report
    ) -> None:  # fmt: skip
        self.written, self.path, self.heads, self.report = shard, path, heads, report
        self.causal = pattern.causal
        self.mask = self._load_mask(folder, pattern.heads)
        names = frozenset[str]().union(*(e.names for e in _expressions(shard)))
        cycles = [shard.offset, *(stride.offset for stride in _known(shard.strides))]
        self._uses = tuple(name in names for name in "hgl")
        self._uses_head = self.mask is not None and self.mask.ndim == 3
        self._uses_position = any(len(offsets) > 1 for offsets in _known(cycles))
        self._shards: dict[tuple[int, ...], Resolved] = {}

    def shard(self, h: int, g: int, l: int, position: int) -> Resolved:
        """The shard of query head h, KV head g, layer l, which is number `position` of the entry's heads."""
        key = tuple(x for x, used in zip((h, g, l), self._uses, strict=True) if used)
        key += (h, position) if self._uses_head or self._uses_position else ()
        if key not in self._shards:
            self._shards[key] = Evaluation(self, (h, g, l), position).shard()
        return self._shards[key]

    def check(self, layers: Sequence[int], group: int | None) -> None:
        """Report what is wrong with the entry in any of its heads and layers, each key's first mistake."""
        self._check_parts()
        if not layers or not self.heads or group is None:
            Evaluation(self, None, 0).shard()
            return
        for l in layers if self._uses[2] else layers[:1]:
            for position, h in enumerate(self.heads):
                self.shard(h, h // group, l, position)

    def _check_parts(self) -> None:
        shard, given = self.written, self.written.model_fields_set
        parts = [part for part in PARTS if part in given]
        if "dense" in given and shard.dense:
            for part in [*parts, *(given & {"offset", "width"})]:
                self.report(
                    (*self.path, part), "`dense: true` keeps everything and stands alone", f"remove {part}", key=True
                )
        elif not parts and not given & {"dense", "offset", "width"}:
            help = "write one of dense, local, stride, strides, sink, globals, random, mask"
            self.report(self.path, "this entry keeps nothing", help, key=True)
        if "stride" not in given and not shard.dense:
            for part in ("offset", "width"):
                if part in given:
                    self.report((*self.path, part), f"{part} without a stride", "add `stride: N` to the entry", key=True)
        if "local" in given and shard.local is not BAD and not isinstance(shard.local, fields.Length):
            sides = shard.local
            if self.causal is True:
                help = "write `local: N`, or `causal: false` at the top of the file"
                self.report((*self.path, "local"), "before and after are for patterns that are not causal", help)
            elif sides is not None and not sides.model_fields_set:
                self.report((*self.path, "local"), "local holds neither before nor after", "write `local: {before: 4, after: 4}`")
        if shard.globals not in (None, BAD) and not shard.globals.model_fields_set:
            self.report((*self.path, "globals"), "globals holds neither rows nor columns", "write `globals: {columns: [0]}`")

    def _load_mask(self, folder: FolderPath | None, heads: int) -> np.ndarray | None:
        name = self.written.mask
        if name is None or name is BAD:
            return None
        try:
            mask = read_mask(name, folder)
        except MaskError as error:
            self.report((*self.path, "mask"), error.message, error.help)
            return None
        if mask.ndim == 2 or heads is BAD or self.heads is None:
            return mask if mask.ndim == 2 else None
        if len(mask) == heads:
            return mask
        if len(mask) == len(self.heads):  # one for each head of the entry, in their order
            of_head = dict(zip(self.heads, mask, strict=True))
            import numpy as np

            empty = np.zeros_like(mask[0])
            return np.stack([of_head.get(head, empty) for head in range(max(self.heads) + 1)])
        help = f"it must be {heads}, the pattern's, or {len(self.heads)}, the entry's" if len(self.heads) != heads else f"it must be {heads}"
        self.report((*self.path, "mask"), f"the mask is for {len(mask)} heads", help)
        return None


class Evaluation:
    """An entry at one (h, g, l). Without: only what holds for all of them is checked."""

    def __init__(self, entry: Entry, at: tuple[int, int, int] | None, position: int) -> None:
        self._entry, self._at, self._position = entry, at, position

    def shard(self) -> Resolved:
        """The parts as numbers. What was reported is left out; a file with a report never gets this far."""
        written = self._entry.written
        if written.dense:
            return DENSE
        local, local_tokens = self._local()
        sink = self._length(written.sink, ("sink",), 0) if written.sink else None
        strides = [] if written.stride is None else [self._stride(written, (), written.stride)]
        for n, stride in enumerate(written.strides if written.strides is not BAD else ()):
            if stride is not BAD:
                strides.append(self._stride(stride, ("strides", n), stride.every))
        rows, columns = self._globals()
        mask = self._entry.mask
        return Resolved(
            local=local,
            local_tokens=local_tokens,
            strides=tuple(stride for stride in strides if stride is not None),
            sink=sink[0] if sink and sink[1] == "blocks" else 0,
            sink_tokens=sink[0] if sink and sink[1] == "tokens" else 0,
            global_rows=rows,
            global_columns=columns,
            random=self._random(),
            mask=mask if mask is None or mask.ndim == 2 else mask[self._at[0] if self._at else 0],
        )

    def _number(
        self, number: Expression, path: Path, lowest: int, highest: int, unit: str = "", name: str | None = None
    ) -> int | None:
        """An expression's value within [lowest, highest]; otherwise None, and a report unless one stands already."""
        if number is BAD or self._at is None and number.names:
            return None
        h, g, l = self._at or (0, 0, 0)
        path = (*self._entry.path, *path)
        try:
            value = number.evaluate(h, g, l)
        except ExpressionError as error:
            self._entry.report(path, error.message, error.help, inside=error.inside)
            return None
        if lowest <= value <= highest:
            return value
        name = name or str(next(step for step in reversed(path) if isinstance(step, str)))
        bound = f"at least {lowest}" if value < lowest else f"at most {highest}"
        self._entry.report(path, f"{name} is {value}{unit and ' ' + unit}{self._where(number)}; it must be {bound}")
        return None

    def _where(self, *numbers: Expression) -> str:
        """At which head and layer, if that matters to any of the numbers."""
        if self._at is None or not any(number.names for number in numbers):
            return ""
        h, g, l = self._at
        return f" at h = {h}, g = {g}, l = {l}"

    def _length(self, length: fields.Length, path: Path, lowest: int) -> tuple[int, str] | None:
        if length is BAD:
            return None
        tokens = length.unit == "tokens"
        value = self._number(
            length.number, path, lowest, fields.MOST_TOKENS if tokens else fields.MOST_BLOCKS, "tokens" if tokens else ""
        )
        return None if value is None else (value, length.unit)

    def _local(self) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        """(before, after) in blocks and in tokens. A side that is not given reaches no farther than the row itself."""
        written = self._entry.written.local
        if written is None or written is BAD:
            return None, None
        if isinstance(written, fields.Length):
            length = self._length(written, ("local",), 1)
            before = after = length
            if self._entry.causal:
                after = None
        else:
            before = self._length(written.before, ("local", "before"), 1) if written.before else None
            after = self._length(written.after, ("local", "after"), 1) if written.after else None
        sides: dict[str, list[int]] = {}
        for n, side in enumerate((before, after)):
            if side:
                sides.setdefault(side[1], [1, 1])[n] = side[0]
        blocks, tokens = sides.get("blocks"), sides.get("tokens")
        return (blocks[0], blocks[1]) if blocks else None, (tokens[0], tokens[1]) if tokens else None

    def _stride(self, written: Any, path: Path, every_written: Expression) -> ResolvedStride | None:
        """A stride of the list, or the shorthand `stride`, `offset`, `width` of the entry itself."""
        short = not path
        every = self._number(every_written, (*path, "stride" if short else "every"), 1, fields.MOST_BLOCKS)
        anchor, distance_from, distance_to = "key", 0, None
        if not short:
            anchor = written.anchor
            distance_from, distance_to = self._distances(written, path)
        if every is None:
            return None
        width: int | None = 1
        if written.width is not None:
            width = self._number(written.width, (*path, "width"), 1, fields.MOST_BLOCKS)
            if width is not None and width > every:
                where = self._where(written.width, every_written)
                message = f"width {width} must not be above the stride, {every}{where}"
                self._entry.report((*self._entry.path, *path, "width"), message, "a width equal to the stride keeps every block")
                width = None
        offset = self._offset(written.offset, every, every_written, (*path, "offset"))
        if None in (width, offset):
            return None
        return ResolvedStride(every, offset or 0, width or 1, anchor, distance_from, distance_to)

    def _offset(self, written: tuple[Expression, ...], every: int, every_written: Expression, path: Path) -> int | None:
        if written is BAD:
            return None
        if not written:
            return 0
        n = self._position % len(written)
        number, path = written[n], (*path, n)
        value = self._number(number, path, -fields.MOST_TOKENS, fields.MOST_TOKENS)
        if value is None:
            return None
        if not number.names and not 0 <= value < every:
            message = f"offset {value} must be {'at least 0 and ' if value < 0 else ''}below the stride, {every}"
            self._entry.report(
                (*self._entry.path, *path), message + self._where(every_written),
                f"offsets are taken modulo the stride; did you mean {value % every}?",
            )  # fmt: skip
        return value % every

    def _distances(self, written: Any, path: Path) -> tuple[int, int | None]:
        low: int | None = 0
        high: int | None = None
        if written.distance_from is not None:
            low = self._number(written.distance_from, (*path, "from"), 0, fields.MOST_BLOCKS)
        if written.distance_to is not None:
            high = self._number(written.distance_to, (*path, "to"), 1, fields.MOST_BLOCKS)
        if low is not None and high is not None and high <= low:
            where = self._where(written.distance_from or Expression.constant(0), written.distance_to)
            message = f"to {high} must be above from, {low}{where}"
            self._entry.report((*self._entry.path, *path, "to"), message, "the distances are from <= |i - j| < to")
        return low or 0, high

    def _globals(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        written = self._entry.written.globals
        if written is None or written is BAD:
            return (), ()
        return self._indices(written.rows, "rows"), self._indices(written.columns, "columns")

    def _indices(self, written: tuple[fields.Indices, ...], key: str) -> tuple[int, ...]:
        found: set[int] = set()
        for n, item in enumerate(written if written is not BAD else ()):
            if item is BAD:
                continue
            path = ("globals", key, n)
            first = self._number(item.first, path, 0, fields.MOST_BLOCKS - 1)
            last = first if item.last is None else self._number(item.last, path, 0, fields.MOST_BLOCKS - 1)
            if first is None or last is None:
                continue
            if last - first >= fields.MOST_INDICES or len(found) + last - first >= fields.MOST_INDICES:
                message = f"more than {fields.MOST_INDICES} {key}"
                self._entry.report((*self._entry.path, *path), message, "`sink: N` keeps the first N columns for every row")
                break
            found.update(range(first, last + 1))
        return tuple(sorted(found))

    def _random(self) -> tuple[int, int] | None:
        written = self._entry.written.random
        if written is None or written is BAD:
            return None
        blocks = self._number(written.blocks, ("random", "blocks"), 1, fields.MOST_RANDOM)
        seed: int | None = 0
        if written.seed is not None:
            seed = self._number(written.seed, ("random", "seed"), 0, fields.LARGEST_SEED)
        return None if blocks is None or seed is None else (blocks, seed)


def _known(values: Any) -> list[Any]:
    return [value for value in values if value is not BAD] if values is not BAD else []


def _expressions(value: Any) -> Iterator[Expression]:
    """Every expression of an entry."""
    if isinstance(value, Expression):
        yield value
    elif isinstance(value, fields.Length):
        yield value.number
    elif isinstance(value, fields.Indices):
        yield value.first
    elif isinstance(value, tuple):
        for item in value:  # type: ignore[reportUnknownVariableType]
            yield from _expressions(item)
    elif hasattr(value, "model_fields_set"):
        for name in type(value).model_fields:
            yield from _expressions(getattr(value, name))
