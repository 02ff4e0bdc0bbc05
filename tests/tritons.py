"""The versions of Triton that kernels are tested with: the one that is installed, and another, which only compiles."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

TESTED = ("3.6.0", "3.9.0")
GIVEN = "PATTERNCC_TEST_TRITON"  # names a folder that has the other version
PATIENCE_S = 180.0
BUILD = Path(__file__).parents[1] / "build"


class NoTritonError(Exception):
    """Why the other version is not here."""


def other() -> str:
    """The tested version that is not installed."""
    try:
        installed = version("triton")
    except PackageNotFoundError:
        installed = ""
    return next(each for each in TESTED if each != installed)


def folder(fetches: bool) -> Path:
    """The folder of the other version: the one that is named, or what lies in build/, fetched into it when asked for.
    NoTritonError says why there is none."""
    if given := os.environ.get(GIVEN):
        return Path(given)
    wanted = other()
    path = BUILD / f"triton-{wanted}"
    if (path / "triton").is_dir():
        return path
    if not fetches:
        raise NoTritonError(f"Triton {wanted} is not here: `python3 run.py compiled` fetches it")
    part = BUILD / f"triton-{wanted}.part"
    shutil.rmtree(part, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--timeout", "15"]
    alone = ["--retries", "1", "--no-deps", "--no-compile", "--only-binary", ":all:", "--target", str(part)]
    try:
        done = subprocess.run([*pip, *alone, f"triton=={wanted}"], capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        raise NoTritonError(f"Triton {wanted} could not be fetched in {PATIENCE_S:.0f} s") from None
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"])[-1]
        raise NoTritonError(f"Triton {wanted} could not be fetched: {why}")
    part.replace(path)
    return path


def both_versions(test: Callable[..., None]) -> Callable[..., None]:
    """The test for each version, of which its argument `triton` is the folder."""
    ids = {"": "triton", "other": "other triton"}
    return pytest.mark.parametrize("triton", ids, ids=ids.get, indirect=True)(test)
