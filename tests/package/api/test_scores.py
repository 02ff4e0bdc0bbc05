"""Scores of half precision are fp32: on the CPU by what they are off, on a GPU by the operators that run."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.package.made import compiled

HALF = [torch.bfloat16, torch.float16]


def attend_of() -> ModuleType:
    return importlib.import_module(f"{compiled('strided')[1].__name__}.cpu.attend")


def error(attend: ModuleType, dtype: torch.dtype) -> float:
    """The error of the LSE of scores about 30 large, against fp64 of the same numbers."""
    torch.manual_seed(5)
    q, k, v = (torch.randn(3, 1, n, 16).mul(7.5).to(dtype) for n in (5, 70, 70))
    found = attend.attend(q, k, v, None, 0.25)[1]
    true = (q.double() @ k.double().mT * 0.25).logsumexp(-1)
    return float((found - true).abs().max())


@pytest.mark.parametrize("dtype", HALF)
def test_they_are_not_rounded(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    attend = attend_of()
    monkeypatch.setattr(attend, "FUSED", None)
    # Sums of 16 products up to a few hundred, and their logarithm of about 100, at 6e-8 of that each.
    assert error(attend, dtype) < 1e-4

    def rounded(q: Tensor, k: Tensor) -> Tensor:
        return (q @ k.mT).float()

    monkeypatch.setattr(attend, "_products", rounded)  # negative control: this is what would be seen
    assert error(attend, dtype) > 1e-2


class Seen(TorchDispatchMode):
    """What operators run, with the numbers that each gives."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls += [(str(func), out)] * isinstance(out, Tensor)
        return out


@pytest.mark.parametrize("dtype", HALF)
def test_on_a_gpu_no_key_is_copied(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a bank of KVCache gives them: keys that are a part of its memory."""
    attend = attend_of()
    monkeypatch.setattr(attend, "_writes_sums", lambda device: device.type == "meta")
    memory = torch.empty(3, 101, 16, dtype=dtype, device="meta")
    q, k = torch.empty(3, 1, 5, 16, dtype=dtype, device="meta"), memory[:, :70][:, None]
    with Seen() as seen:
        scores = attend._products(q, k)
    assert scores.dtype == torch.float32 and scores.shape == (3, 1, 5, 70)
    assert [name for name, _ in seen.calls if "bmm" in name] == ["aten.bmm.dtype"]
    made = {out.untyped_storage()._cdata for _, out in seen.calls} - {x.untyped_storage()._cdata for x in (q, memory)}
    assert made == {scores.untyped_storage()._cdata}


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALF)
def test_on_this_gpu(dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    q, k = (torch.randn(3, 1, n, 16, device="cuda").mul(7.5).to(dtype) for n in (5, 101))
    k = k[:, :, :70]
    found = attend_of()._products(q, k)
    assert (found - q.double() @ k.double().mT).abs().max() < 1e-3
