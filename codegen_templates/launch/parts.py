"""Parts of the keys of a tile: how many programs share them, who merges what each has made of its part, and memory."""

from __future__ import annotations

import torch

from ..kernels.combine import (
    attn_combine,
)
from ..pattern import BLOCK, V_HEAD_DIM
from . import arrays, binaries, configs, sharing, told
from .kept import only_meanwhile, zeros
from .outputs import like_output
from .requests import MOST_TOGETHER, arch, processors
from .sharing import Splits

binaries.use(
    attn_combine,
)


def splits_of(heads: arrays.Heads, count: int, q_len: int, kv_len: int, device: torch.device) -> Splits:
    """The programs that share the keys of a tile, for so many requests of at most these lengths; two numbers where it
    saves enough that the query heads of a KV head load near keys together."""
    sizes = count, q_len, kv_len, device
    saves = sharing.saved(heads, -(-kv_len // BLOCK)) >= configs.LEAST_SAVED
    return (shared_splits(heads, *sizes) if saves else None) or whole_splits(heads, *sizes)


def whole_splits(heads: arrays.Heads, count: int, q_len: int, kv_len: int, device: torch.device) -> int:
    """The same where each class loads all of its keys. Tiles of a few positions more or less count as one."""
    shared = arrays.shared(heads)
    positions = (configs.FEW_ROWS if q_len * shared <= configs.FEW_ROWS else configs.USUAL_ROWS) // shared
    tiles = count * arrays.kinds(heads) * -(-q_len // max(positions, 1))
    return configs.splits(processors(device), tiles, arrays.kept(heads, -(-kv_len // BLOCK)) * BLOCK)


def shared_splits(
    heads: arrays.Heads, count: int, q_len: int, kv_len: int, device: torch.device
) -> tuple[int, int] | None:
    """The same where near keys are loaded together: the programs of far keys and of near ones. None where this cannot
    be done in one tile and one launch."""
    columns, near = -(-kv_len // BLOCK), sharing.near(heads)
    rows = (1 << (q_len - 1).bit_length()) * sharing.most(heads)
    if not near or rows > configs.FEW_ROWS:
        return None
    tiles = count * arrays.kinds(heads), count * len(sharing.members(heads))
    kept = (arrays.kept(heads, columns) - near) * BLOCK, min(near, columns) * BLOCK
    found = configs.shared_splits(processors(device), tiles, kept)
    return found if merges(device, rows, sum(found)) else None


def merges(device: torch.device, rows: int, splits: int) -> bool:
    """Whether the last of the programs that share a tile of so many rows merges their parts; else a launch does."""
    return configs.merges(arch(device), rows * splits * V_HEAD_DIM)


def room_to_merge(tiles: int, splits: int, rows: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """For what several programs have of each tile, outputs and LSEs, and for counting those that have been there."""
    of_float = {"dtype": torch.float32, "device": device}
    parts = torch.empty(tiles, splits, rows, V_HEAD_DIM, **of_float)
    lses = torch.empty(tiles, splits, rows, **of_float)
    only_meanwhile(parts, lses)
    return parts, lses, zeros(device, tiles, is_left=True)


def room(q: torch.Tensor, count: int, longest: int, splits: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """For output and LSE of packed queries [rows, heads, head_dim], or of [splits, ...] parts of them in float32: the
    kernel writes all of it if it is launched once, else 0 and -inf stand where no request is."""
    rows, heads, _ = q.shape
    of_float = {"dtype": torch.float32, "device": q.device}
    if splits:
        out = torch.empty(splits, rows, heads, V_HEAD_DIM, **of_float)
        lse = torch.empty(splits, heads, rows, **of_float)
    else:
        out, lse = like_output(q), torch.empty(heads, rows, **of_float)
    if not count or not longest or count > MOST_TOGETHER:
        out.zero_()
        lse.fill_(float("-inf"))
    return out, lse


def combine(parts: torch.Tensor, sums: torch.Tensor, out: torch.Tensor, lse: torch.Tensor, splits: int) -> None:
    """Fill out and lse from what the programs that share the keys have made, by a launch of its own."""
    only_meanwhile(parts, sums)
    numbers = splits, *parts.stride()[:3], *sums.stride()[:2], *out.stride()[:2], lse.stride(0)
    launch = told.combine_launch(out.device, out.dtype, 1 << (splits - 1).bit_length())
    grid = out.shape[0], out.shape[1], 1
    launch(attn_combine, grid, (parts, sums, out, lse), numbers)
