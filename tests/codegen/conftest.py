"""What tests of binaries share: one package that is compiled with them, in any worker."""

from __future__ import annotations

from pathlib import Path

import pytest

import patterncc
from patterncc.pipeline import Compiled
from tests.codegen.shipped import TEXT, Once, build


@pytest.fixture(scope="session")
def folder(once: Once) -> Path:
    """With everything that is compiled for these tests, in any worker."""

    def make(folder: Path) -> None:
        (folder / "small.yaml").write_text(TEXT)
        build(folder)
        patterncc.compile(folder / "small.yaml", output=folder / "plain")

    return once("binaries", make)


@pytest.fixture(scope="session")
def compiled(folder: Path) -> Compiled:
    """Found in the cache, and where it was copied."""
    done = build(folder)
    assert done.cached
    return done
