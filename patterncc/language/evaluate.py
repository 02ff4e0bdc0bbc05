"""An entry of `shards` at one head and layer: every expression a number within its bounds, or a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patterncc.errors import counted
from patterncc.language import limits
from patterncc.language.document import BAD, Path
from patterncc.language.expression import Expression, ExpressionError
from patterncc.language.quantities import Indices, Length
from patterncc.language.resolved import DENSE, Resolved, ResolvedStride

if TYPE_CHECKING:
    from patterncc.language.claimed import Claimed


def evaluate(entry: Claimed, at: tuple[int, int, int] | None, position: int) -> Resolved:
    """The entry's parts as numbers at (h, g, l), for its head number `position`; mistakes are reported.

    Without `at`, only values that are the same for every head and layer are checked.
    """
    return _Evaluation(entry, at, position).shard()


class _Evaluation:
    """An entry at one (h, g, l). Without one, only values that are the same for all of them are checked."""

    def __init__(self, entry: Claimed, at: tuple[int, int, int] | None, position: int) -> None:
        self._entry, self._at, self._position = entry, at, position

    def shard(self) -> Resolved:
        """The parts as numbers. What was reported is left out; a file with a report never gets this far."""
        written = self._entry.shard
        if written.dense is True:
            return DENSE
        local, local_tokens = self._local()
        sink = self._length(written.sink, ("sink",), 0) if written.sink else None
        strides = [] if written.stride is None else [self._stride(written, (), written.stride)]
        bands: list[tuple[int, int | None]] = []
        for n, stride in enumerate(written.strides if written.strides is not BAD else ()):
            if stride is BAD:
                continue
            found = self._stride(stride, ("strides", n), stride.every)
            if self._is_band(stride, ("strides", n)):
                bands += [(found.distance_from, found.distance_to)] if found else []
            else:
                strides.append(found)
        rows, columns = self._globals()
        mask = self._entry.mask
        return Resolved(
            local=local,
            local_tokens=local_tokens,
            chunk=self._chunk() or 0,
            strides=tuple(stride for stride in strides if stride is not None),
            bands=tuple(bands),
            sink=sink[0] if sink and sink[1] == "blocks" else 0,
            sink_tokens=sink[0] if sink and sink[1] == "tokens" else 0,
            global_rows=rows,
            global_columns=columns,
            random=self._random(),
            mask=mask if mask is None or mask.ndim == 2 else mask[self._at[0] if self._at else 0],
        )

    def _report(self, path: Path, message: str, help: str | None = None, inside: tuple[int, int] | None = None) -> None:
        self._entry.note(path, message, help, inside=inside)

    def _number(self, number: Expression, path: Path, lowest: int, highest: int, unit: str = "") -> int | None:
        """An expression's value within [lowest, highest]; otherwise None, and a report."""
        if number is BAD or (self._at is None and number.names):
            return None
        try:
            value = number.evaluate(*(self._at or (0, 0, 0)))
        except ExpressionError as error:
            self._report(path, error.message, error.help, error.inside)
            return None
        if lowest <= value <= highest:
            return value
        name = next(step for step in reversed(path) if isinstance(step, str))
        bound = f"at least {lowest}" if value < lowest else f"at most {highest}"
        self._report(path, f"{name} is {value}{unit}{self._where(number)}; it must be {bound}")
        return None

    def _where(self, *numbers: Expression | None) -> str:
        """The head and layer for messages, "" where none of the numbers depends on them."""
        if self._at is None or not any(number and number.names for number in numbers):
            return ""
        return " at h = {}, g = {}, l = {}".format(*self._at)

    def _length(self, length: Length, path: Path, lowest: int) -> tuple[int, str] | None:
        if length is BAD:
            return None
        most, unit = (limits.MOST_TOKENS, " tokens") if length.unit == "tokens" else (limits.MOST_BLOCKS, "")
        value = self._number(length.number, path, lowest, most, unit)
        return None if value is None else (value, length.unit)

    def _chunk(self) -> int | None:
        """In blocks. A chunk in tokens is a whole number of them: so all of a block's tokens are in one chunk."""
        written, block = self._entry.shard.chunk, self._entry.block
        length = None if written is None else self._length(written, ("chunk",), 1)
        if written is None or length is None or block is BAD:
            return None
        size, unit = length
        if unit == "tokens":
            if size % block:
                given = f"{counted(size, 'token')}{self._where(written.number)}"
                message = f"chunk is {given}; it must be a multiple of the block, {block}"
                near = [n for n in (size // block * block, -(-size // block) * block) if n]
                self._report(("chunk",), message, f"did you mean {' or '.join(f'{n} tokens' for n in near)}?")
                return None
            size //= block
        if size > limits.MOST_CHUNK:
            message = f"chunk is {size} blocks{self._where(written.number)}; it must be at most {limits.MOST_CHUNK}"
            self._report(("chunk",), message, "larger blocks make longer chunks")
            return None
        return size

    def _local(self) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        """(before, after) in blocks and in tokens. A side that is not given reaches no farther than the row itself."""
        written = self._entry.shard.local
        if written is None or written is BAD:
            return None, None
        if isinstance(written, Length):
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
        """A stride of the list, or the shorthand `stride`, `offset`, `width` of the entry itself (an empty path)."""
        every = self._number(every_written, (*path, "every" if path else "stride"), 1, limits.MOST_BLOCKS)
        distances = self._distances(written, path) if path else (0, None)
        if every is None:
            return None
        width = 1 if written.width is None else self._number(written.width, (*path, "width"), 1, limits.MOST_BLOCKS)
        if width is not None and width > every:
            message = f"width {width} must not be above the stride, {every}{self._where(written.width, every_written)}"
            self._report((*path, "width"), message, "a width equal to the stride keeps every block")
        offset = self._offset(written.offset, every, every_written, (*path, "offset"))
        if width is None or offset is None or distances is None:
            return None
        return ResolvedStride(every, offset, width, written.anchor if path else "key", *distances)

    def _offset(self, written: tuple[Expression, ...], every: int, every_written: Expression, path: Path) -> int | None:
        """The offset of the entry's head number `position`, reduced; a plain number must need no reducing."""
        if written is BAD or not written:
            return None if written is BAD else 0
        n = self._position % len(written)
        value = self._number(written[n], (*path, n), -limits.MOST_TOKENS, limits.MOST_TOKENS)
        if value is None:
            return None
        if not written[n].names and not 0 <= value < every:
            lowest = "at least 0 and " if value < 0 else ""
            message = f"offset {value} must be {lowest}below the stride, {every}{self._where(every_written)}"
            self._report((*path, n), message, f"offsets are taken modulo the stride; did you mean {value % every}?")
        return value % every

    def _distances(self, written: Any, path: Path) -> tuple[int, int | None] | None:
        """From, to; None when either is wrong. Those in tokens go to `_band`."""
        low = high = None
        if written.distance_from is not None:
            low = self._length(written.distance_from, (*path, "from"), 0)
        if written.distance_to is not None:
            high = self._length(written.distance_to, (*path, "to"), 1)
        first, stop = low[0] if low else 0, high[0] if high else None
        if stop is not None and stop <= first and (not low or not high or low[1] == high[1]):
            ends = [length and length.number for length in (written.distance_from, written.distance_to)]
            message = f"to {stop} must be above from, {first}{self._where(*ends)}"
            self._report((*path, "to"), message, "the distances are from <= |i - j| < to")
        wrong = (low is None and written.distance_from is not None) or (
            high is None and written.distance_to is not None
        )
        return None if wrong else (first, stop)

    def _is_band(self, written: Any, path: Path) -> bool:
        """Whether a stride's distances are in tokens; what does not go with that is reported."""
        units = {key: x.unit for key in ("from", "to") if (x := getattr(written, f"distance_{key}")) and x is not BAD}
        if "tokens" not in units.values():
            return False
        key = "from" if units.get("from") == "tokens" else "to"
        if len(set(units.values())) > 1:
            self._report((*path, key), "from is in one unit, to in another", "write both in blocks, or both in tokens")
        elif written.every.text.strip() != "1":
            help = "write `every: 1` for a band of distances, or count this stride's distances in blocks"
            self._report((*path, key), "distances in tokens are for bands, which keep every block", help)
        elif self._entry.causal is False:
            self._report((*path, key), "distances in tokens are for causal patterns", "count distances in blocks")
        return True

    def _globals(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        written = self._entry.shard.globals
        if written is None or written is BAD:
            return (), ()
        return self._indices(written.rows, "rows"), self._indices(written.columns, "columns")

    def _indices(self, written: tuple[Indices, ...], key: str) -> tuple[int, ...]:
        found: set[int] = set()
        for n, item in enumerate(written if written is not BAD else ()):
            if item is BAD:
                continue
            path = ("globals", key, n)
            first = self._number(item.first, path, 0, limits.MOST_BLOCKS - 1)
            last = first if item.last is None else self._number(item.last, path, 0, limits.MOST_BLOCKS - 1)
            if first is None or last is None:
                continue
            if last - first >= limits.MOST_INDICES or len(found) + last - first >= limits.MOST_INDICES:
                message = f"more than {limits.MOST_INDICES} {key}"
                help = "`sink: N` keeps the first N columns for every row"
                self._report(path, message, help)
                break
            found.update(range(first, last + 1))
        return tuple(sorted(found))

    def _random(self) -> tuple[int, int] | None:
        written = self._entry.shard.random
        if written is None or written is BAD:
            return None
        blocks = self._number(written.blocks, ("random", "blocks"), 1, limits.MOST_RANDOM)
        seed: int | None = 0
        if written.seed is not None:
            seed = self._number(written.seed, ("random", "seed"), 0, limits.LARGEST_SEED)
        return None if blocks is None or seed is None else (blocks, seed)
