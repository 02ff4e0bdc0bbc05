"""Tile sizes, warps and pipeline stages, chosen once for each kind of GPU: never by trying them out on a length.

What `tuned.py` finds measured on the GPU that is here goes before what stands here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KERNEL_FILES = (  # in the folder kernels
    "index_map",
    "tiles",
    "shares",
    "forward",
    "combine",
    "sinks",
    "row_map",
    "rounds",
    "backward_prepare",
    "backward_dq",
    "backward_sum",
    "backward_item",
    "backward_dkdv",
    "cache",
)
MOST_SPLITS = 64  # programs that share the keys of a tile; kernels/combine.py has room for so many
MOST_MERGED = 1 << 16  # numbers that the last of several programs merges by itself
LEAST_SHARED = 64  # kept keys that are worth a program of their own
FARTHEST = 1 << 24  # blocks: more than there are
LEAST_SAVED = 1 / 8  # of the loads of a step, from which on heads share those of near keys; above 1 they never do
USUAL_ROWS = 64  # of a tile, about
FEW_ROWS = 16  # and fewer: what there is when decoding, and a configuration of its own
SHARED_BYTES = {"sm_80": 166912, "sm_86": 101376, "sm_90": 232448, "sm_100": 232448, "gfx942": 65536, "gfx950": 163840}


@dataclass(frozen=True)
class Config:
    """How much a program does at once, and with what."""

    rows: int  # of a tile of queries
    keys: int  # of a tile of keys
    warps: int
    stages: int


def family(arch: str) -> str:
    """The GPUs that share configurations with `arch`: sm_86, sm_89 and sm_12x have little shared memory."""
    if arch in SHARED_BYTES:
        return arch
    if arch.startswith("gfx"):
        return "gfx950" if arch >= "gfx950" else "gfx942"
    return {"sm_8": "sm_86", "sm_9": "sm_90", "sm_10": "sm_100", "sm_11": "sm_100"}.get(arch[:-1], "sm_86")


def keeps_all(classes: Sequence[Mapping[str, Any]]) -> bool:
    """Whether each of these classes (of `pattern.CLASSES`) is dense: one band of all columns.

    >>> keeps_all([{"closed": (0, ((0, None, 1, (0,), "j"),))}])
    True
    >>> keeps_all([{"closed": (0, ((0, 4, 1, (0,), "j"), (4, None, 8, (1,), "j")))}, {"closed": None}])
    False
    """
    return all(one["closed"] and (0, None, 1, (0,), "j") in one["closed"][1] for one in classes)


def all_near(one: Mapping[str, Any], block: int) -> int:
    """The distance in blocks below which a class (of `pattern.CLASSES`) keeps all columns behind a row.

    >>> windows = [(None, 8, *[None] * 4, 1, 0, 1, "j"), (8, 16, *[None] * 4, 4, 0, 4, "j")]
    >>> all_near({"terms": windows, "window": None}, 64), all_near({"terms": (), "window": (200, 1)}, 64)
    (16, 3)
    """
    reach = one["window"][0] // block if one["window"] else 0
    for low, high, *bounds, every, _, width, _ in sorted(one["terms"], key=lambda term: term[0] or 0):
        if bounds == [None] * 4 and width >= every and (low or 0) <= reach:
            reach = max(reach, FARTHEST if high is None else high)
    return reach


def near(groups: Iterable[Iterable[Mapping[str, Any]]], block: int) -> int:
    """The distance in blocks below which the classes of each group keep all columns behind a row, of groups of several
    classes; 0 where there are none, or some keep fewer."""
    kinds = (list(group) for group in groups)
    return min((all_near(one, block) for group in kinds if len(group) > 1 for one in group), default=0)


def forward(arch: str, head_dim: int, item: int, rows: int) -> Config:
    """For the forward kernel: `item` is the size of a number in bytes, `rows` what there is for a tile."""
    if arch == "interpreter":
        return Config(64, 64, 4, 2)
    if head_dim > 256:
        return wide(arch, item, rows)
    is_amd = arch.startswith("gfx")
    stages = 1 if is_amd else 2 if item == 4 or head_dim > 128 or arch.startswith("sm_12") else 3
    if family(arch) == "sm_90" and item == 2:
        if rows > FEW_ROWS:
            return Config(64, 64, 4, 3) if head_dim <= 128 else Config(128, 64, 8, 2)
        if head_dim <= 128:
            return Config(16, 64, 2, 2)
    if rows <= FEW_ROWS:  # decoding: the keys are all the work
        return Config(16, 32 if head_dim * item > 256 else 64, 8 if head_dim * item > 256 else 4, stages)
    if item == 4:  # products of float32 are not left to matrix units
        return Config(64, 32, 8, 2) if head_dim <= 64 else Config(32, 16, 8, 1)
    if head_dim > 128:
        return Config(64, 64 if family(arch) == "sm_100" else 32, 8, stages)
    if head_dim <= 64 and family(arch) == "sm_100":
        return Config(128, 128, 8, stages)
    if is_amd:  # two waves on each SIMD
        return Config(128, 64 if head_dim <= 64 else 32, 4, stages)
    return Config(128, 64, 8, stages)


def newest(arch: str, head_dim: int, item: int) -> Config:
    """For the newest token of a cache."""
    found = forward(arch, head_dim, item, FEW_ROWS)
    return Config(FEW_ROWS, found.keys, max(found.warps, 4), found.stages)  # two have too few registers


def dq(arch: str, head_dim: int, item: int, rows: int, is_dense: bool = False) -> Config:
    """The configuration for dQ; `is_dense` where every head keeps all columns."""
    if arch == "interpreter":
        return Config(64, 64, 4, 2)
    if head_dim > 256:
        return wide(arch, item, rows)
    if item == 4:
        return Config(32, 32, 4, 2) if head_dim <= 64 else Config(32, 16, 4, 1)
    if arch.startswith("gfx"):
        return Config(64, 32, 4, 1)
    if head_dim > 128:
        return Config({"sm_90": 128, "sm_86": 32}.get(family(arch), 64), 32, 8, 2)
    if family(arch) == "sm_90":
        return Config(128, 64, 8, 3) if is_dense else Config(64, 64, 4, 3 if head_dim <= 64 else 2)
    keys = 64 if head_dim <= 64 or family(arch) == "sm_100" else 32
    return Config(128, 128 if head_dim <= 64 and family(arch) == "sm_100" else keys, 8, 2)


def dkdv(arch: str, head_dim: int, item: int, is_packed: bool = False) -> Config:
    """For dK and dV: a program owns `keys` and runs through tiles of `rows`. Finding packed sequences takes registers
    that smaller programs do not have."""
    if arch == "interpreter":
        return Config(64, 64, 4, 2)
    if head_dim > 256:
        return wide(arch, item, 32)
    if item == 4:
        return Config(32, 32, 8, 2) if head_dim <= 64 else Config(16, 32, 4, 1)
    if arch.startswith("gfx"):
        return Config(32, 64 if head_dim <= 128 else 32, 4, 1)
    if family(arch) == "sm_90" and not is_packed:
        return Config(32, 64, 4, 3) if head_dim <= 128 else Config(64, 32, 8, 2)  # measured; and no spills but at 128
    if head_dim > 128:
        return Config(32, 32, 8, 1 if family(arch) in ("sm_80", "sm_86") else 2)
    if head_dim <= 64:
        return Config(64, 128, 8, 2)
    if family(arch) in ("sm_80", "sm_86"):
        return Config(64, 64, 8, 2)
    return Config(32, 128, 8, 2)  # registers that are spilled are loaded outside of the loops


def wide(arch: str, item: int, rows: int) -> Config:
    """The configuration of any kernel for heads of more than 256 numbers, whose tiles fill shared memory by themselves.
    Where there is little of it, float32 of 512 numbers has no backward pass: its smallest tiles are too large."""
    size = 32 if item == 2 and family(arch) in ("sm_80", "sm_90", "sm_100") else 16
    return Config(16 if rows <= FEW_ROWS else size, size, 8 if size > 16 else 4, 1)


def splits(processors: int, tiles: int, kept: int) -> int:
    """Programs that share the keys of one tile, of which it keeps so many, so that few tiles still fill the device. No
    more than it takes so that none of them has more keys than with the most programs: each is one more to merge.

    >>> [splits(132, *work) for work in ((8, 8672), (8, 736), (8, 131072), (128, 2528), (512, 1504), (8, 5))]
    [28, 12, 33, 2, 1, 1]
    """
    pieces = -(-kept // LEAST_SHARED)
    most = max(1, min(2 * processors // max(tiles, 1), pieces, MOST_SPLITS))
    return -(-pieces // max(-(-pieces // most), 1)) or 1


def shared_splits(processors: int, tiles: tuple[int, int], kept: tuple[int, int]) -> tuple[int, int]:
    """(far, near): the programs that share the far keys of a tile, and those that share its near ones, which several
    heads load together. `tiles`: how many there are of each kind; `kept`: keys of one. The longest programs of both
    have about as many keys.

    >>> [shared_splits(132, (32 * n, 8 * n), (far, 512)) for n, far in ((1, 256), (1, 8192), (4, 2048), (16, 1024))]
    [(4, 8), (8, 1), (2, 1), (1, 1)]
    """
    pieces = [max(1, -(-n // LEAST_SHARED)) for n in kept]
    longest = [-(-n // max(1, 2 * processors // max(m, 1))) for n, m in zip(pieces, tiles, strict=True)]
    longest.append(-(-sum(pieces) // (MOST_SPLITS - 2)))  # rounded up twice
    far, near = (-(-n // max(longest)) for n in pieces)
    return far, near


def merges(arch: str, numbers: int) -> bool:
    """Whether the last of several programs merges their parts of a tile, so many numbers in all; else a launch does,
    which has a program for each row and head. On AMD's GPUs it always does: what orders stores before loads was seen in
    NVIDIA's instructions alone."""
    return numbers <= MOST_MERGED and not arch.startswith("gfx")
