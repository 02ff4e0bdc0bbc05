"""Tuning on the GPU itself: what wins is stored, taken from then on, and right; what does not fit is skipped."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.gpu import dense
from tests.gpu.test_kernels import Import

pytestmark = pytest.mark.gpu
NAME = "gpu_strided"


def part(name: str) -> ModuleType:
    return importlib.import_module(f"{NAME}.{name}")


@pytest.fixture
def module(package: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.setenv("PATTERNCC_CACHE_DIR", str(tmp_path))
    yield package(NAME)
    part("launch.tuned")._read.clear()


def tune(*directions: str, candidates: list[tuple[int, int, int, int]], **options: Any) -> list[Any]:
    part("launch.tuned")._read.clear()
    known = [part("launch.configs").Config(*sizes) for sizes in candidates]
    return list(part("tuning.main").tune(directions, length=2000, candidates=lambda *_: known, **options))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_each_direction(dtype: torch.dtype, module: ModuleType) -> None:
    few = [(32, 32, 4, 2), (64, 32, 4, 2)]
    directions = part("launch.tuned").DIRECTIONS
    results = tune(*directions, candidates=few, dtype=dtype)
    assert [result.direction for result in results] == list(directions)
    for result in results:
        assert 0 < result.seconds < 1 and result.measured >= 2 and result.skipped == {}, result
        assert json.loads(result.path.read_text())["facts"]["device"] == torch.cuda.get_device_name()
    q = torch.zeros(1, dtype=dtype, device="cuda")
    found = [
        part("launch.tuned").forward(q, 99),
        part("launch.tuned").forward(q, 1),
        part("launch.tuned").dq(q),
        part("launch.tuned").dkdv(q),
    ]
    assert found == [result.config for result in results]
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    q, k, v = (x.requires_grad_() for x in dense.inputs(module, 500, 700, dtype))
    given = [x.detach().cuda().to(dtype).requires_grad_() for x in (q, k, v)]
    wanted, _ = dense.attention(q, k, v, module.dense_mask(500, 700))
    got = module.attention(*given)
    dout = torch.randn_like(wanted).to(dtype)
    wanted.backward(dout.double())
    got.backward(dout.cuda())
    for x, y in zip([got, *(x.grad for x in given)], [wanted, *(x.grad for x in (q, k, v))], strict=True):
        assert dense.error(x, y) < tolerance


def test_what_does_not_fit_is_skipped(module: ModuleType) -> None:
    """Tiles of 512 keys in 8 stages take 516 KiB of shared memory on sm_90, and no GPU has as much."""
    [result] = tune("forward", candidates=[(64, 512, 8, 8), (64, 32, 4, 2)])
    assert result.config.keys != 512 and sum(result.skipped.values()) == 1
    assert any("too much" in why for why in result.skipped), result.skipped


def test_the_program(module: ModuleType, packages: Path, tmp_path: Path) -> None:
    """`python -m gpu_strided.tuning`, with the candidates that users get."""
    command = [sys.executable, "-m", f"{NAME}.tuning", "--length", "2000", "--only", "decode"]
    done = subprocess.run(command, cwd=packages, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("decode: "), done.stderr
    assert len(list((tmp_path / "tuned").iterdir())) == 1
