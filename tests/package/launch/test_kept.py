"""Launches that Triton would drop without a word."""

from __future__ import annotations

import importlib

import pytest
import torch

from tests.package.made import HEAD, compiled


def test_more_programs_than_triton_counts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It multiplies the grid's numbers in 32 bits and launches nothing where that is negative: outputs would hold what
    was in their memory."""
    pytest.importorskip("triton")
    _, package = compiled(HEAD + "shards: [{heads: all, local: 1}]")
    kept = importlib.import_module(f"{package.__name__}.launch.kept")
    monkeypatch.setattr(kept, "current_device", lambda: 0)
    launch = kept.Launch(torch.device("cuda", 0))
    with pytest.raises(ValueError, match=r"small: 32768 x 256 x 256 programs in one launch, .* fewer sequences"):
        launch(None, (1 << 15, 1 << 8, 1 << 8), (), (0,))
    with pytest.raises(TypeError):  # negative control: as many as there may be get as far as the kernel, which is none
        launch(None, ((1 << 31) - 1, 1, 1), (), (0,))
