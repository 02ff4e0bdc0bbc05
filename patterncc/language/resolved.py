"""One head of one layer, every expression evaluated: what the passes and the reference start from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class ResolvedStride:
    """Columns with (x - offset) mod every < width, at distances from <= |i - j| < to. x is j ("key") or i - j."""

    every: int
    offset: int = 0  # reduced: 0 <= offset < every
    width: int = 1
    anchor: str = "key"
    distance_from: int = 0
    distance_to: int | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Resolved:
    """The parts of a shard as plain numbers; a column is kept when any part keeps it."""

    dense: bool = False
    local: tuple[int, int] | None = None  # in blocks: -after < i - j < before
    local_tokens: tuple[int, int] | None = None  # in tokens: -after < t - u < before
    strides: tuple[ResolvedStride, ...] = ()
    bands: tuple[tuple[int, int | None], ...] = ()  # tokens, of a causal pattern: from <= t - u < to
    chunk: int = 0  # blocks: i // chunk == j // chunk; 0: no such part
    sink: int = 0  # blocks: j < sink
    sink_tokens: int = 0  # tokens: u < sink_tokens
    global_rows: tuple[int, ...] = ()
    global_columns: tuple[int, ...] = ()
    random: tuple[int, int] | None = None  # columns a row, seed
    mask: np.ndarray | None = None  # bool [rows, columns]

    def __repr__(self) -> str:
        shown = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self)[:-1] if getattr(self, f.name) != f.default]
        shown += [f"mask=bool{list(self.mask.shape)}"] if self.mask is not None else []
        return f"Resolved({', '.join(shown)})"


DENSE = Resolved(dense=True)
