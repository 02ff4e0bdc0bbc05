"""Tables that several threads grow at once: each has at least the rows that it asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.harness import made
from tests.kernels.held import TABLE


class Contested(dict[Any, tuple[int, int, Any]]):
    """What is kept, where another thread puts what it made of a shorter length after each look and each entry."""

    def __init__(self) -> None:
        self.shorter: Any = None

    def _disturbed(self, key: Any) -> None:
        if self.shorter is not None:
            super().__setitem__(key, self.shorter)

    def __setitem__(self, key: Any, found: tuple[int, int, Any]) -> None:
        super().__setitem__(key, found)
        self._disturbed(key)

    def __getitem__(self, key: Any) -> tuple[int, int, Any]:
        found = super().__getitem__(key)
        self._disturbed(key)
        return found

    def get(self, key: Any, default: Any = None) -> Any:
        found = super().get(key, default)
        self._disturbed(key)
        return found


@pytest.mark.parametrize("of", ["rows", "columns", "tiles", "slots"])
def test_another_thread_makes_a_shorter_one(of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    part = made(TABLE["drawn"]).part
    module = part("rules.row_slots" if of == "slots" else "rules.tables")
    kept = Contested()
    monkeypatch.setattr(module, "_kept", kept)
    build = {
        "rows": lambda n: module.row_table(0, n, n),
        "columns": lambda n: module.column_table(0, n, n),
        "tiles": lambda n: module.tile_table(0, 8, 16, n, n),
        "slots": lambda n: module.row_slots(0, 0, n, 0, n),
    }[of]
    build(16)
    [kept.shorter] = kept.values()
    assert [len(build(n)[0]) for n in (64, 16, 64)] == [65, 17, 65]
    kept.shorter = None
    build(64)
    [longer] = kept.values()
    assert longer[:2] == (64, 64) and build(16) is longer[2]  # it serves shorter lengths


def test_what_is_kept_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that begin at other positions in each call have lists of their own."""
    part = made(TABLE["drawn"]).part
    module, kept = part("rules.row_slots"), dict[Any, Any]()
    monkeypatch.setattr(module, "_kept", kept)
    monkeypatch.setattr(part("rules.tables"), "MOST", 3)
    first = module.row_slots(0, 0, 4, 0, 4)
    for n in range(1, 8):
        module.row_slots(0, 0, 4, 128 * n, 4)
        assert len(kept) <= 3
    again = module.row_slots(0, 0, 4, 0, 4)
    assert all(map(torch.equal, again, first))
