"""A cache of its own for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from patterncc.runtime.cache import Cache


@pytest.fixture
def cache(fresh_cache: Path) -> Cache:
    return Cache.of_user()
