"""Cells of which few are measured: the most telling ones, those that constants wait for, those that goals are about."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.gpu.changes import VARIANTS

FAST = {  # the most telling ones, in a minute and a half
    "ceilings": ("copy", "dense, head dim 128, cudnn"),
    "attention": ("ancestor, 4 x 16384", "block16, 1 x 16384", "grouped, 1 x 16384"),
    "families": ("families: ancestor, 4 x 16384",),
    "serving": ("decode grouped, 64 x 16384",),
    "host": ("host",),
    "peers": ("flex: ancestor, 4 x 16384",),
}
DECIDING = {  # what open constants wait for, in three minutes
    "ceilings": (*(f"dense, head dim {dim}, cudnn" for dim in (128, 64)), "copy"),
    "families": tuple(
        f"families: {name}"
        for name in ("ancestor, 4 x 16384", "dim64, 4 x 16384", "table, 4 x 16384", "block16, 4 x 16384",
                     "grouped, 1 x 16384", "dim256, 4 x 16384", "ancestor, 1 x 2048")
    ),
    "variants": tuple(f"variants: {name}" for name in VARIANTS),
    "serving": ("launches grouped, 1 x 131072", "sharing apart, 16 x 4096", "sharing apart, 16 x 16384",
                "launches grouped, 4 x 16384", "sharing apart, 1 x 4096", "decode grouped, 1 x 4096"),
    "host": ("host",),
}  # fmt: skip
GOALS = (  # what goals are about, in four minutes and a half
    ("ceilings", ("copy", *(f"dense, head dim {dim}, cudnn" for dim in (128, 64, 256)), "dense, head dim 128, flash")),
    ("attention", ("ancestor, 4 x 16384", "block16, 1 x 16384", "grouped, 1 x 16384", "ancestor, 1 x 16384")),
    ("host", ("host",)),
    ("peers", ("flex: ancestor, 4 x 16384", "dkernel: ancestor, 4 x 16384")),
    ("serving", tuple(f"decode grouped, {size}" for size in ("64 x 16384", "1 x 4096", "1 x 131072", "16 x 32768"))),
    ("attention", ("thin, 1 x 131072", "block32, 1 x 16384", "block128, 1 x 16384", "dim64, 1 x 16384")),
    ("serving", tuple(f"decode apart, {size}" for size in ("64 x 16384", "1 x 4096", "16 x 32768"))),
    ("peers", tuple(f"flex: {name}, 1 x 16384" for name in ("block16", "grouped", "block128"))),
    ("attention", ("dense, 1 x 16384", "ancestor, 4 x 65536", "dim256, 1 x 16384", "apart, 1 x 16384")),
    ("serving", ("decode apart, 1 x 131072", "decode grouped, 1 x 1048576", "decode apart, 1 x 1048576")),
)
Selection = Sequence[tuple[str, tuple[str, ...]]]
SELECTIONS: dict[str, Selection] = {"fast": (*FAST.items(),), "deciding": (*DECIDING.items(),), "goals": GOALS}
