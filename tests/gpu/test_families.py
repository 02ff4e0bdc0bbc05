"""Both families of kernels on the same inputs: right, repeatable bit for bit, and each taken when it is asked for."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest
import torch

from tests.gpu import dense
from tests.gpu.patterns import FAMILIES
from tests.gpu.test_kernels import Import

pytestmark = pytest.mark.gpu
TOLERANCE = 1e-2  # bf16 rounds the result and the weights
TAKEN = ["gluon"] * 2  # what a launcher sees of three calls with either family: the third is made by a recipe
CASES = [(name, way) for name in FAMILIES for way in ("whole", "packed")]


def launcher_of(name: str, file: str) -> Any:
    """A module of a package's launchers, on a GPU that has both families."""
    hopper, launcher = (importlib.import_module(f"{name}.launch.{each}") for each in ("hopper", file))
    if not hopper.is_hopper(torch.device("cuda", torch.cuda.current_device())):
        pytest.skip("needs an sm_90, and a version of Triton that is tested")
    if not launcher.IS_WRITTEN_FOR:
        pytest.skip(f"no {file} of head_dim {importlib.import_module(name).PATTERN['head_dim']} in Gluon")
    return launcher


def watched(monkeypatch: pytest.MonkeyPatch, launcher: Any, function: str) -> list[str]:
    """The families that are asked for whenever the launcher's function is called from now on."""
    taken: list[str] = []
    launch = getattr(launcher, function)

    def seen(*given: Any) -> Any:
        taken.append(os.environ["PATTERNCC_KERNELS"])
        return launch(*given)

    monkeypatch.setattr(launcher, function, seen)
    return taken


@pytest.mark.parametrize(("name", "way"), CASES)
def test_forward(name: str, way: str, package: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    module, lengths = package(name), (700, 333)
    hopper = launcher_of(name, "hopper")
    parts = [dense.inputs(module, n, n, torch.bfloat16, batch=1) for n in lengths]
    wanted = [dense.attention(*part, module.dense_mask(n)) for part, n in zip(parts, lengths, strict=True)]
    packed = [torch.cat(x, 2)[0].transpose(0, 1).contiguous().cuda().bfloat16() for x in zip(*parts, strict=True)]
    bounds = torch.tensor([0, lengths[0], sum(lengths)], dtype=torch.int32, device="cuda")
    taken = watched(monkeypatch, hopper, "forward")
    for family in ("triton", "gluon"):
        monkeypatch.setenv(hopper.SWITCH, family)
        results: list[Any] = []
        for _ in range(3):
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
        pairs = [pair for later in results[1:] for pair in zip(results[0], later, strict=True)]
        assert all(torch.equal(x, y) for x, y in pairs), family
    assert taken == TAKEN


@pytest.mark.parametrize(("name", "page"), [("gpu_wide", 64), ("gpu_fine", 16), ("gpu_exact", 32)])
def test_chunked_prefill(name: str, page: int, package: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a paged cache, which is NaN where there is no key: one request in the middle of its prompt, one whole."""
    module, lengths, news = package(name), [700, 333], [130, 333]
    hopper = launcher_of(name, "hopper")
    q, k, v = dense.inputs(module, max(lengths), max(lengths), torch.bfloat16)
    k_cache, v_cache, table = dense.paged(k, v, lengths, page, torch.bfloat16)
    last = [(q[r : r + 1, :, n - new : n], k[r : r + 1, :, :n], v[r : r + 1, :, :n])
            for r, (n, new) in enumerate(zip(lengths, news, strict=True))]  # fmt: skip
    wanted = [dense.attention(*x, module.dense_mask(new, n)) for x, new, n in zip(last, news, lengths, strict=True)]
    rows = torch.cat([x[0][0] for x in last], 1).transpose(0, 1).contiguous().cuda().bfloat16()
    starts = torch.tensor([0, news[0], sum(news)], dtype=torch.int32)
    whole = [x.cuda() for x in (k_cache, v_cache, table, torch.tensor(lengths).int(), starts)]
    taken = watched(monkeypatch, hopper, "forward")
    for family in ("triton", "gluon"):
        monkeypatch.setenv(hopper.SWITCH, family)
        found = [module.attention_paged(rows, *whole, max_q_len=max(news), return_lse=True) for _ in range(2)]
        out, lse = found[0]
        true = torch.cat([x[0][0] for x in wanted], 1).transpose(0, 1), torch.cat([x[1][0] for x in wanted], 1)
        errors = dense.error(out, true[0]), dense.error(lse, true[1])
        assert max(errors) < TOLERANCE, (family, errors)
        assert all(torch.equal(x, y) for x, y in zip(*found, strict=True)), family
    assert taken and set(taken) == {"gluon"}


def test_launches_side_by_side(package: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of one launch draw their tiles from a counter, which another on another stream must not know of."""
    module, shapes = package("gpu_wide"), [(2, n, 1500, 128) for n in (4, 2, 2)]
    launcher = launcher_of("gpu_wide", "hopper_backward")
    monkeypatch.setenv(launcher.hopper.SWITCH, "gluon")
    inputs = [torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for shape in shapes]
    dout = torch.randn_like(inputs[0])

    def step() -> list[torch.Tensor]:
        out = module.attention(*inputs)
        return [out.detach(), *torch.autograd.grad(out, inputs, dout)]

    wanted = step()
    streams = [torch.cuda.Stream() for _ in range(4)]
    found: list[list[torch.Tensor]] = []
    for _ in range(5):
        for stream in streams:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                found.append(step())
    torch.cuda.synchronize()
    assert all(torch.equal(x, y) for each in found for x, y in zip(each, wanted, strict=True))


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

    taken = [watched(monkeypatch, launcher, function) for function in ("fill_dq", "fill_dkdv")]
    fused = watched(monkeypatch, importlib.import_module(f"{name}.launch.hopper_fused"), "fill")
    results: dict[str, Any] = {}
    families = ("triton", "gluon") if way == "packed" else ("triton", "gluon", "fused")
    for family in families:
        monkeypatch.setenv(launcher.hopper.SWITCH, family)
        for again in (False, True, True):
            leaves = [x.clone().requires_grad_() for x in inputs]
            found = torch.autograd.grad(attend(*leaves), leaves, gradients)
            assert not again or all(torch.equal(x, y) for x, y in zip(found, results[family], strict=True)), family
            results[family] = found
        errors = {n: dense.error(x, y) for n, x, y in zip(("dq", "dk", "dv"), found, wanted, strict=True)}
        assert max(errors.values()) < TOLERANCE, (family, errors)
    for other in families[1:]:
        pairs = zip(results["triton"], results[other], strict=True)
        assert all(dense.error(x, y.cpu().double()) < TOLERANCE for x, y in pairs)
    assert taken == [TAKEN, TAKEN] and fused == ["fused"] * len(TAKEN) * (way == "whole")
