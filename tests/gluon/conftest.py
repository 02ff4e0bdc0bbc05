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


@pytest.fixture
def cut_items(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Long items of the fused backward are cut, as where there are many processors and long sequences."""

    def cut(launcher: Any) -> None:
        monkeypatch.setattr(launcher.fused_items, "LEAST_SLOTS", 3)
        monkeypatch.setattr(launcher.fused_items.items, "MOST_SLOTS", 1000)
        launcher.fused_items.work.cache_clear()

    return cut
