"""The machine on which tests of the search tune."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.package.launch.tuned import part
from tests.package.tuning.machine import Machine


@pytest.fixture
def machine(fresh_cache: Path) -> Iterator[Machine]:
    part("launch.tuned")._read.clear()
    yield Machine()
    part("launch.tuned")._read.clear()
