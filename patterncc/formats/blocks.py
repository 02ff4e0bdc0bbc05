"""A pattern at one length as blocks that are kept whole, in part, or not at all, the form that other libraries take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from patterncc.errors import UsageError
from patterncc.reference import keeps

if TYPE_CHECKING:
    from patterncc.language import Pattern

MOST_PAIRS = 2**33  # token pairs that are looked at, over all kinds of heads
NONE, WHOLE, PART = 0, 1, 2  # a state of PART + n: the pairs of parts[n] are kept


@dataclass(frozen=True)
class Blocks:
    """`states` [classes, rows, columns] int32; `parts` [n, size, size] bool; `classes` [layers, heads] int32."""

    size: int  # tokens of a block
    length: int
    causal: bool
    states: NDArray[np.int32]
    parts: NDArray[np.bool_]
    classes: NDArray[np.int32]

    def triangle(self) -> int | None:
        """The state of a block on the diagonal that keeps all that causality leaves; None if there is none."""
        tril = np.tril(np.ones((self.size, self.size), bool))
        equal = [n for n, part in enumerate(self.parts) if (part == tril).all()]
        return PART + equal[0] if equal else None

    def mask(self, number: int) -> NDArray[np.bool_]:
        """The token pairs of one class, [length, length]."""
        table = np.concatenate([np.zeros_like(self.parts[:1]), np.ones_like(self.parts[:1]), self.parts])
        wide = table[self.states[number]].swapaxes(1, 2)
        count = self.states.shape[1] * self.size
        return wide.reshape(count, count)[: self.length, : self.length]


def blocks_of(pattern: Pattern, length: int, size: int | None = None) -> Blocks:
    """All kinds of heads of a pattern at `length` tokens, in blocks of `size` tokens (default: the pattern's).

    Pairs behind the end count as kept, so that a last block that is cut is whole where all of its pairs are. Raises
    UsageError where the length is too large to be looked at pair by pair.
    """
    size = size or pattern.block
    kinds: dict[object, tuple[int, int]] = {}
    heads = pattern.shape(0).heads
    classes = np.zeros((pattern.layers, heads), np.int32)
    numbers: dict[object, int] = {}
    for layer in range(pattern.layers):
        for head in range(heads):
            shard = pattern.shard(layer, head)
            key = _key(shard)
            if key not in numbers:
                numbers[key], kinds[key] = len(numbers), (layer, head)
            classes[layer, head] = numbers[key]
    if len(kinds) * length * length > MOST_PAIRS:
        most = int((MOST_PAIRS / len(kinds)) ** 0.5)
        raise UsageError(f"{length:,} tokens are too many to be written out", f"for this pattern at most {most:,}")
    parts: dict[bytes, int] = {}
    count = -(-length // size)
    states = np.zeros((len(kinds), count, count), np.int32)
    keys = np.arange(count * size)
    for number, (layer, head) in enumerate(kinds.values()):
        for row in range(count):
            queries = keys[row * size : (row + 1) * size]
            kept = keeps(pattern, layer, head, queries, keys)
            possible = queries[:, None] >= keys if pattern.causal else np.ones_like(kept)
            behind = (queries[:, None] >= length) | (keys >= length)
            tiles = ((kept | behind) & possible).reshape(size, count, size).swapaxes(0, 1)
            some, every = (tiles & ~behind.reshape(size, count, size).swapaxes(0, 1)).any((1, 2)), tiles.all((1, 2))
            states[number, row] = np.where(every & some, WHOLE, NONE)
            for column in np.flatnonzero(some & ~every):
                states[number, row, column] = PART + parts.setdefault(tiles[column].tobytes(), len(parts))
    made = [np.frombuffer(part, bool).reshape(size, size) for part in parts] or [np.zeros((size, size), bool)]
    return Blocks(size, length, pattern.causal, states, np.stack(made), classes)


def _key(shard: object) -> object:
    """Equal for equal shards; a mask is an array, which is compared by its bytes."""
    return tuple(x.tobytes() if isinstance(x, np.ndarray) else x for x in (getattr(shard, f) for f in _fields(shard)))


def _fields(shard: object) -> list[str]:
    import dataclasses

    return [field.name for field in dataclasses.fields(shard)]  # type: ignore[arg-type]


def same_in_groups(blocks: Blocks, group: int) -> tuple[int, int] | None:
    """The first (layer, KV head) whose query heads keep different pairs, or None."""
    layers, heads = blocks.classes.shape
    grouped = blocks.classes.reshape(layers, heads // group, group)
    differ = np.argwhere((grouped != grouped[..., :1]).any(-1))
    return (int(differ[0][0]), int(differ[0][1])) if len(differ) else None


def listed(states: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """How many columns each row keeps, [..., rows], and which: those first, then the others, [..., rows, columns]."""
    order = np.argsort(~states, axis=-1, kind="stable").astype(np.int32)
    return states.sum(-1).astype(np.int32), order
