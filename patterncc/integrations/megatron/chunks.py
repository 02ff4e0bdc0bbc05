"""Megatron lays a context over n ranks in 2n chunks: rank r holds chunks r and 2n - 1 - r, which evens causal work out.

An exchange plan splits a context into contiguous runs. The chunks are moved there and back by all-to-all exchanges:
each rank sends two chunks at most, whatever the number of ranks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.nn.functional import all_to_all_single


def owner(chunk: int, ranks: int) -> int:
    """The rank that holds a chunk in the zig-zag order.

    >>> [owner(chunk, 2) for chunk in range(4)]
    [0, 1, 1, 0]
    """
    return min(chunk, 2 * ranks - 1 - chunk)


def positions(tokens: int, group: Any) -> Tensor:
    """Which tokens of a context this rank holds in zig-zag order, on the CPU."""
    rank, ranks = group.rank(), group.size()
    chunks = torch.arange(tokens, device="cpu").chunk(2 * ranks)
    return torch.cat([chunks[rank], chunks[2 * ranks - 1 - rank]])


def to_runs(x: Tensor, group: Any) -> Tensor:
    """Tokens of this rank's contiguous run, from what all ranks hold in zig-zag order: as many as x [tokens, ...] has.
    Differentiable."""
    rank, ranks = group.rank(), group.size()
    held = [rank, 2 * ranks - 1 - rank]
    wanted = [2 * rank, 2 * rank + 1]
    return _exchanged(x, [chunk // 2 for chunk in held], [owner(chunk, ranks) for chunk in wanted], held, wanted, group)


def to_zigzag(x: Tensor, group: Any) -> Tensor:
    """The way back: from the contiguous run of this rank to its two chunks."""
    rank, ranks = group.rank(), group.size()
    held = [2 * rank, 2 * rank + 1]
    wanted = [rank, 2 * ranks - 1 - rank]
    return _exchanged(x, [owner(chunk, ranks) for chunk in held], [chunk // 2 for chunk in wanted], held, wanted, group)


def _exchanged(
    x: Tensor, targets: list[int], sources: list[int], held: list[int], wanted: list[int], group: Any
) -> Tensor:
    """Two chunks sent to `targets`, two received from `sources`; between two ranks chunks travel in ascending order."""
    ranks, size = group.size(), len(x) // 2
    chunks = dict(zip(held, x.chunk(2), strict=True))
    to = dict(zip(held, targets, strict=True))
    sent = sorted(held, key=lambda chunk: (to[chunk], chunk))
    came = dict(zip(wanted, sources, strict=True))
    received = sorted(wanted, key=lambda chunk: (came[chunk], chunk))
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    moved = all_to_all_single(
        out,
        torch.cat([chunks[chunk] for chunk in sent]),
        [size * sources.count(rank) for rank in range(ranks)],
        [size * targets.count(rank) for rank in range(ranks)],
        group=group,
    )
    parts = dict(zip(received, moved.chunk(2), strict=True))
    return torch.cat([parts[chunk] for chunk in wanted])
