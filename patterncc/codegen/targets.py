"""The GPUs that kernels can be compiled for on a machine without one."""

from __future__ import annotations

import re

from patterncc.errors import did_you_mean

ARCHES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_103", "sm_120", "gfx90a", "gfx942", "gfx950")


def check_arch(arch: str) -> str:
    """The name itself, if kernels can be compiled for it; else ValueError with the name that was probably meant."""
    if arch not in ARCHES:
        raise ValueError(f"unknown architecture {arch!r}: {meant(arch) or 'known are ' + ', '.join(ARCHES)}")
    return arch


def meant(arch: str) -> str | None:
    """A hint for an architecture that is not among `ARCHES`: the name that was probably meant, or None.

    >>> meant("sm90"), meant("sm_75"), meant("tpu")
    ('did you mean sm_90?', 'the kernels need an NVIDIA GPU of sm_80 or newer', None)
    """
    if near := did_you_mean(arch, ARCHES, digits=0):
        return f"did you mean {near}?"
    old = re.fullmatch(r"sm_?(\d\d)", arch)
    return "the kernels need an NVIDIA GPU of sm_80 or newer" if old and int(old[1]) < 80 else None


def backend(arch: str) -> tuple[str, int | str, int]:
    """Triton's backend, its name of the architecture, and the width of a warp.

    >>> backend("sm_90"), backend("gfx942")
    (('cuda', 90, 32), ('hip', 'gfx942', 64))
    """
    if found := re.fullmatch(r"sm_(\d+)", arch):
        return "cuda", int(found[1]), 32
    return "hip", arch, 64
