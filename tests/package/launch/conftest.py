"""A package with a cache of its own for measured configurations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.package.launch.tuned import part


@pytest.fixture
def tuned(fresh_cache: Path) -> Iterator[ModuleType]:
    """The module `tuned` of a package that has not read anything yet."""
    module = part("launch.tuned")
    module._read.clear()
    yield module
    module._read.clear()
