"""Parts of the keys of a tile: how many programs share them, and who merges what each has made of its part."""

from __future__ import annotations

import torch

from ..pattern import BLOCK, V_HEAD_DIM
from . import arrays, configs
from .kept import only_meanwhile, zeros
from .requests import arch, processors


def splits_of(heads: arrays.Heads, count: int, q_len: int, kv_len: int, device: torch.device) -> int:
    """The programs that share the keys of a tile, for so many requests of at most these lengths. Tiles of a few
    positions more or less count as one."""
    shared = arrays.shared(heads)
    positions = (configs.FEW_ROWS if q_len * shared <= configs.FEW_ROWS else configs.USUAL_ROWS) // shared
    tiles = count * arrays.kinds(heads) * -(-q_len // max(positions, 1))
    return configs.splits(processors(device), tiles, arrays.kept(heads, -(-kv_len // BLOCK)) * BLOCK)


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
