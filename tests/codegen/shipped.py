"""A small pattern, compiled with binaries for sm_90."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import patterncc
from patterncc.pipeline import Compiled
from tests.harness import small

ROOT = Path(__file__).parents[2]
TEXT = small("small", head_dim=64, block=64)
CACHES = {f"attn_cache_{kernel}_small" for kernel in ("put", "read")}  # not AMD's: torch's operators do it there
KERNELS = {f"attn_{kernel}_small" for kernel in ("fwd", "bwd_prepare", "bwd_dq", "bwd_dkdv", "bwd_sum", "bwd_round")}
KERNELS |= CACHES
COMBINE = "attn_combine_small"  # where the last program has too much to merge


def environment(cache: Path) -> dict[str, str]:
    """Environment variables of a process that compiles as binaries are compiled, with Triton's cache in `cache`."""
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "TRITON_CACHE_DIR": str(cache)}
    return os.environ | {"TRITON_DISABLE_LINE_INFO": "1", "PYTHONDONTWRITEBYTECODE": "1"} | paths


Once = Callable[[str, Callable[[Path], None]], Path]


def build(folder: Path) -> Compiled:
    """The pattern with binaries for sm_90 and fp16, copied to `folder`/shipped; the cache is in `folder` too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(folder / "triton"))
        patch.setenv("PATTERNCC_CACHE_DIR", str(folder / "cache"))
        return patterncc.compile(folder / "small.yaml", output=folder / "shipped", binaries=["sm_90"], dtype="fp16")


def flip(file: Path) -> None:
    """Change one bit."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
