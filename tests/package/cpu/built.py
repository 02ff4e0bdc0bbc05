"""What the tests of building the C library share."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.package.made import TOLERANCE, check, compiled, exact, run, tensors, weights_like


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "cpu").iterdir())


def holds(name: str = "tokens", queries: int = 150) -> None:
    pattern, package = compiled(name)
    inputs = tensors(pattern, queries, 150)
    weights = weights_like(inputs)
    found = run(lambda q, k, v: package.attention(q, k, v, return_lse=True), inputs, weights)
    check(found, exact(pattern, inputs, weights), TOLERANCE[torch.float32])
