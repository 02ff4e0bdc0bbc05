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
CALLS = {"whole": 1, "packed": 2}  # of a launcher in two calls: a whole one is repeated by its recipe
CASES = [(name, way) for name in FAMILIES for way in ("whole", "packed")]


def launcher_of(name: str, file: str) -> Any:
    """A module of a package's launchers, on a GPU that has both families."""
    hopper = importlib.import_module(f"{name}.launch.hopper")
    if not hopper.is_hopper(torch.device("cuda", torch.cuda.current_device())):
        pytest.skip("needs an sm_90, and a version of Triton that is tested")
    return importlib.import_module(f"{name}.launch.{file}")


@pytest.mark.parametrize(("name", "way"), CASES)
def test_forward(name: str, way: str, package: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    module, lengths = package(name), (700, 333)
    hopper = launcher_of(name, "hopper")
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
    assert taken == ["gluon"] * CALLS[way]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_backward(name: str, way: str, package: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through output and LSE, with more tiles and items than there are processors; the families agree."""
    module = package(name)
    launcher = launcher_of(name, "hopper_backward")
    lengths, batch = ((700, 333, 1, 450) * 4, 1) if way == "packed" else ((700,), 12)
    parts = [dense.inputs(module, n, n, torch.bfloat16, batch=batch) for n in lengths]
    weights = (
        [torch.randn_like(part[0]).bfloat16().double() for part in parts],
        [torch.randn(part[0].shape[:3]) for part in parts],
    )
    true = []
    for part, dout, dlse in zip(parts, *weights, strict=True):
        leaves = [x.requires_grad_() for x in part]
        out, lse = dense.attention(*leaves, module.dense_mask(part[0].shape[2]))
        kept = ~lse.isneginf()
        true.append(torch.autograd.grad((out, lse[kept]), leaves, (dout, dlse[kept].double())))
    if way == "packed":
        rows = [torch.cat(x, 2)[0].transpose(0, 1).contiguous() for x in (*zip(*parts, strict=True), weights[0])]
        inputs = [x.detach().cuda().bfloat16() for x in rows]
        bounds = torch.tensor([0, *lengths]).cumsum(0).int().cuda()
        gradients = inputs.pop(), torch.cat(weights[1], 2)[0].cuda()
        wanted = [torch.cat(x, 2)[0].transpose(0, 1) for x in zip(*true, strict=True)]

        def attend(*leaves: torch.Tensor) -> Any:
            return module.attention_varlen(*leaves, bounds, bounds, max(lengths), max(lengths), return_lse=True)
    else:
        inputs = [x.detach().cuda().bfloat16() for x in parts[0]]
        gradients, wanted = (weights[0][0].cuda().bfloat16(), weights[1][0].cuda()), list(true[0])

        def attend(*leaves: torch.Tensor) -> Any:
            return module.attention(*leaves, return_lse=True)

    taken: list[str] = []
    backward = launcher.backward

    def seen(*given: Any) -> Any:
        taken.append(family)
        return backward(*given)

    monkeypatch.setattr(launcher, "backward", seen)
    results: dict[str, Any] = {}
    for family in ("triton", "gluon"):
        monkeypatch.setenv(launcher.hopper.SWITCH, family)
        for again in (False, True):
            leaves = [x.clone().requires_grad_() for x in inputs]
            found = torch.autograd.grad(attend(*leaves), leaves, gradients)
            assert not again or all(torch.equal(x, y) for x, y in zip(found, results[family], strict=True)), family
            results[family] = found
        errors = {n: dense.error(x, y) for n, x, y in zip(("dq", "dk", "dv"), found, wanted, strict=True)}
        assert max(errors.values()) < TOLERANCE, (family, errors)
    assert all(dense.error(x, y.cpu().double()) < TOLERANCE for x, y in zip(*results.values(), strict=True))
    assert taken == ["gluon"] * CALLS[way]
