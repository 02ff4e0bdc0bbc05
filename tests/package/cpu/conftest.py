"""The C library's module as a new process would have it, with a cache of its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.package.made import compiled


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], ModuleType]:
    """The module that builds libraries, of a package that has not asked for one yet, with a cache of its own."""
    monkeypatch.setenv("PATTERNCC_CPU", "")
    library = importlib.import_module(f"{compiled('tokens')[1].__name__}.cpu.library")
    monkeypatch.setenv("PATTERNCC_CACHE_DIR", str(tmp_path / "cache"))

    def forget() -> ModuleType:
        monkeypatch.setattr(library, "_found", [])
        return library

    return forget
