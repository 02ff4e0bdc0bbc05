"""The GPUs that kernels can be compiled for on a machine without one."""

from __future__ import annotations

import re

from patterncc.errors import did_you_mean

ARCHES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_103", "sm_120", "gfx90a", "gfx942", "gfx950")


def check_arch(arch: str) -> str:
    """The name as given; ValueError with what could have been meant."""
    if arch not in ARCHES:
        near = did_you_mean(arch, ARCHES)
        hint = f"did you mean {near}?" if near else f"known are {', '.join(ARCHES)}"
        raise ValueError(f"unknown architecture {arch!r}: {hint}")
    return arch


def backend(arch: str) -> tuple[str, int | str, int]:
    """Triton's backend, its name of the architecture, and the width of a warp.

    >>> backend("sm_90"), backend("gfx942")
    (('cuda', 90, 32), ('hip', 'gfx942', 64))
    """
    if found := re.fullmatch(r"sm_(\d+)", arch):
        return "cuda", int(found[1]), 32
    return "hip", arch, 64
