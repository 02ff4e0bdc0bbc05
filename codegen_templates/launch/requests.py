"""What launches share: where the rows of each request are, how they are cut into tiles, and the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, reduce
from operator import or_

import torch

from ..pattern import BLOCK, ROWS_PER_TILE_FREE
from .configs import Config
from .graphs import is_capturing, pin, quiet, settle

LOG2_E = 1.4426950408889634
MOST_STARTS = 1024  # lists of `query_starts` that are kept
MOST_TOGETHER = (1 << 16) - 1  # requests of a launch: CUDA's grid has no more in its last dimension


@dataclass(slots=True, eq=False)
class Requests:
    """Where the queries and keys of each request are; lengths are of the longest when they are packed."""

    count: int
    q_len: int
    kv_len: int
    q_start: int = 0  # the position of the first query
    kv_start: int = 0  # the position of the first key, a multiple of the block
    q_starts: torch.Tensor | None = None  # packed: [count + 1] where each one's queries begin
    kv_starts: torch.Tensor | None = None  # [count + 1] where its keys begin; when paged, [count] how many there are
    pages: torch.Tensor | None = None  # [count, pages of the longest]
    q_total: int = 0  # packed queries and keys, of which some may belong to no request; 0: none does
    kv_total: int = 0

    @property
    def are_packed(self) -> bool:
        return self.q_starts is not None

    @property
    def rows(self) -> tuple[int, int]:
        """The first row of blocks that there can be, and where they stop."""
        if self.are_packed:
            return -self.q_len // BLOCK, -(-self.kv_len // BLOCK)
        return self.q_start // BLOCK, -(-(self.q_start + self.q_len) // BLOCK)

    def launches(
        self, *tensors: torch.Tensor | None, dim: int | None
    ) -> Iterable[tuple[Requests, tuple[torch.Tensor | None, ...]]]:
        """The requests, as many at a time as a launch can have, and their parts of tensors, in whose dimension `dim`
        they are numbered, if in any. A launch without all of them writes nothing of what is in none."""
        return ((self, tensors),) if self.count <= MOST_TOGETHER else self._parts(tensors, dim)

    def _parts(
        self, tensors: tuple[torch.Tensor | None, ...], dim: int | None
    ) -> Iterator[tuple[Requests, tuple[torch.Tensor | None, ...]]]:
        for first in range(0, self.count, MOST_TOGETHER):
            count = min(MOST_TOGETHER, self.count - first)
            lists = (self.q_starts, self.kv_starts, self.pages)
            q_starts, kv_starts, pages = (x if x is None else x[first : first + count + 1] for x in lists)
            own = replace(self, count=count, q_starts=q_starts, kv_starts=kv_starts, pages=pages, q_total=0, kv_total=0)
            yield own, tuple(x if x is None or dim is None else x.narrow(dim, first, count) for x in tensors)

    @property
    def columns(self) -> int:
        return -(-(self.kv_start + self.kv_len) // BLOCK)

    def tiling(self, config: Config, shared: int) -> tuple[int, int, int]:
        """Positions and heads of a tile, and the most tiles of a request, when `shared` heads may share a tile."""
        wanted = 1 << (self.q_len - 1).bit_length()
        block_q = min(config.rows, wanted, config.rows if ROWS_PER_TILE_FREE else BLOCK)
        block_h = max(min(config.rows // block_q, shared), 16 // block_q)
        if self.are_packed:
            return block_q, block_h, (self.q_len + block_q - 2) // block_q + 1
        return block_q, block_h, -(-(self.q_start + self.q_len) // block_q) - self.q_start // block_q


def in_units(item: int, strides: list[int]) -> tuple[int, list[int]]:
    """The unit in which these strides are whole, 16 bytes if it can be, and they in it; numbers have `item` bytes.

    >>> in_units(2, [4096, 128]), in_units(2, [4096, 100])
    ((8, [512, 16]), (1, [4096, 100]))
    """
    unit = 16 // item  # a power of two
    if reduce(or_, strides) % unit:
        return 1, strides
    return unit, [stride // unit for stride in strides]


def in_line(x: torch.Tensor) -> torch.Tensor:
    """The same numbers, side by side in the last dimension, as kernels read lists."""
    return x if x.stride(-1) == 1 else x.contiguous()


def packed_strides(x: torch.Tensor) -> tuple[int, int, int]:
    """Of batch, heads and rows of [(parts,) rows, heads, head_dim]: every request sees all rows."""
    rows, heads, _ = x.stride()[-3:]
    return 0, heads, rows


def page_strides(x: torch.Tensor) -> tuple[int, int, int]:
    """Of pages, heads and rows of [pages, page_size, heads, head_dim]."""
    pages, rows, heads, _ = x.stride()
    return pages, heads, rows


def precision(q: torch.Tensor) -> str:
    """Of products of float32, as torch is set; others have one precision."""
    return "tf32" if q.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest" else "ieee"


def query_starts(count: int, q_len: int, device: torch.device) -> torch.Tensor:
    """Where the queries of each request begin when all have as many. What a graph being captured makes is there only
    once the graph runs, so it is not kept."""
    key, is_captured = (count, q_len, device), is_capturing(device)
    found = _starts.get(key)
    if found is None:
        found = torch.arange(count + 1, dtype=torch.int32, device=device) * q_len
        if not is_captured:
            settle(device)
            if len(_starts) >= MOST_STARTS:
                quiet(device)
                _starts.clear()
            _starts[key] = found
    elif is_captured:
        pin(found)
    return found


_starts: dict[tuple[int, int, torch.device], torch.Tensor] = {}


@cache
def arch(device: torch.device) -> str:
    """The name of the device's architecture, as `patterncc compile --arch` takes it."""
    if device.type != "cuda":
        return "interpreter"
    if torch.version.hip:
        return torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))


@cache
def processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
