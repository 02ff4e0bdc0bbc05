"""Both families of kernels on the same inputs: right, repeatable bit for bit, and each taken when it is asked for."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

from tests.gpu import dense
from tests.gpu.patterns import FAMILIES
from tests.gpu.test_kernels import Import

pytestmark = pytest.mark.gpu
TOLERANCE = 1e-2  # bf16 rounds the result and the weights
CASES = [(name, way) for name in FAMILIES for way in ("whole", "packed")]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_forward(name: str, way: str, package: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    module, lengths = package(name), (700, 333)
    hopper = importlib.import_module(f"{name}.launch.hopper")
    if not hopper.is_hopper(torch.device("cuda", torch.cuda.current_device())):
        pytest.skip("needs an sm_90, and a version of Triton that is tested")
    parts = [dense.inputs(module, n, n, torch.bfloat16, batch=1) for n in lengths]
    wanted = [dense.attention(*part, module.dense_mask(n)) for part, n in zip(parts, lengths, strict=True)]
    packed = [torch.cat(x, 2)[0].transpose(0, 1).contiguous().cuda().bfloat16() for x in zip(*parts, strict=True)]
    bounds = torch.tensor([0, lengths[0], sum(lengths)], dtype=torch.int32, device="cuda")
    taken: list[str] = []
    forward = hopper.forward

    def seen(*given: Any) -> Any:
        taken.append(family)
        return forward(*given)

    monkeypatch.setattr(hopper, "forward", seen)
    for family in ("triton", "gluon"):
        monkeypatch.setenv(hopper.SWITCH, family)
        results: list[Any] = []
        for _ in range(2):
            if way == "packed":
                out, lse = module.attention_varlen(*packed, bounds, bounds, lengths[0], lengths[0], return_lse=True)
                found = out.transpose(0, 1), lse
                true = [torch.cat([x[n][0] for x in wanted], 1) for n in range(2)]
            else:
                out, lse = module.attention(*(x.cuda().bfloat16() for x in parts[0]), return_lse=True)
                found, true = (out, lse), wanted[0]
            errors = [dense.error(x, y) for x, y in zip(found, true, strict=True)]
            assert max(errors) < TOLERANCE, (family, errors)
            results.append(found)
        assert all(torch.equal(x, y) for x, y in zip(*results, strict=True)), family
    assert taken == ["gluon"] * 2
