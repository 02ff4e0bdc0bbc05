"""Fixtures of all tests of the Hopper kernels."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def short_items(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Long columns are split, as where there are many processors and long sequences."""

    def shorten(launcher: Any, most_slots: int = 1000) -> None:
        monkeypatch.setattr(launcher, "processors", lambda _device: 20)
        monkeypatch.setattr(launcher.items, "LEAST_ROWS", 3)
        monkeypatch.setattr(launcher.items, "MOST_SLOTS", most_slots)
        launcher.items.work.cache_clear()

    return shorten
