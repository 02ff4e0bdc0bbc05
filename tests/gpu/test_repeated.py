"""Later calls launch what the first one of their kind did, by a recipe: right, and the same bits, by both families. Of
calls that only such launches make: sinks, and packed rows that belong to no sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.gpu import dense
from tests.gpu.conftest import DEVICES, Device
from tests.gpu.test_families import launcher_of
from tests.gpu.test_kernels import Import

CALLS = 4  # the first records, the others repeat; the last one of other tensors
BY = [("gpu_strided", "triton"), ("gpu_tokens", "triton"), ("gpu_wide", "gluon"), ("gpu_wide_both_ways", "gluon")]
BY += [("gpu_wide_drawn", "gluon"), ("gpu_fine", "gluon")]
SLOW = [pytest.mark.interpret, pytest.mark.slow]
Attend = Callable[..., tuple[Tensor, Tensor]]


# The interpreter, where they take minutes, and bf16: what is kept differs by no dtype.
@pytest.fixture(params=[pytest.param(*DEVICES[0].values, id="interpret", marks=SLOW), DEVICES[2]])
def device(request: pytest.FixtureRequest) -> Device:
    torch.manual_seed(0)
    return request.param


@pytest.fixture
def module(name: str, family: str, device: Device, package: Import, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package, by that family where the device has both."""
    found = package(name)
    if family == "gluon":
        if device.name == "cpu":
            pytest.skip("no interpreter has Gluon")
        launcher_of(name, "hopper")
    monkeypatch.setenv("PATTERNCC_KERNELS", family)
    return found


def repeated(device: Device, attend: Attend, inputs: list[Tensor], weights: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Output, LSE and the gradients of the inputs, which all calls give bit for bit; `weights` are the gradients of
    output and LSE."""
    first: list[Tensor] = []
    for n in range(CALLS):
        given = inputs if n < CALLS - 1 else [x.clone() for x in inputs]
        leaves = [x.detach().requires_grad_() for x in given]
        out, lse = attend(*leaves)
        found = [out.detach(), lse.detach(), *torch.autograd.grad((out, lse), leaves, weights)]
        assert not first or all(torch.equal(x, y) for x, y in zip(found, first, strict=True)), f"call {n + 1}"
        first = first or found
    return first


def with_sinks(out: Tensor, lse: Tensor, sinks: Tensor) -> tuple[Tensor, Tensor]:
    """Dense attention [batch, heads, rows, ..] with exp(sinks) [heads] in its softmax's sum too."""
    line = sinks[:, None].expand_as(lse)
    return out * torch.sigmoid(lse - line)[..., None], torch.logaddexp(lse, line)


@pytest.mark.parametrize(("name", "family"), BY)
def test_sinks_are_right_in_every_call(name: str, family: str, module: Any, device: Device) -> None:
    """Output, LSE and all gradients, that of the sinks too, with a sink that takes all and one that takes nothing."""
    length = 53 * device.times
    inputs = dense.inputs(module, length, length, device.dtype)
    sinks = torch.tensor([0.5, -float("inf"), 3.0, -1.0], dtype=torch.float64)
    wide = torch.randn_like(inputs[0][..., : inputs[2].shape[-1]]).to(device.dtype)
    weights = wide.double(), torch.randn(wide.shape[:3]).double()
    leaves = [x.requires_grad_() for x in (*inputs, sinks)]
    out, lse = dense.attention(*leaves[:3], module.dense_mask(length))
    wanted = with_sinks(out, lse, leaves[3])
    finite = ~wanted[1].isneginf()
    grads = torch.autograd.grad((wanted[0], wanted[1][finite]), leaves, (weights[0], weights[1][finite]))
    given = [x.detach().to(device.name, device.dtype) for x in inputs] + [sinks.detach().to(device.name).float()]
    on_device = wide.to(device.name), (weights[1] * finite).float().to(device.name)

    def attend(q: Tensor, k: Tensor, v: Tensor, sink: Tensor) -> tuple[Tensor, Tensor]:
        return module.attention(q, k, v, sinks=sink, return_lse=True)

    found = repeated(device, attend, given, on_device)
    for x, y in zip(found, (*wanted, *grads), strict=True):
        assert dense.error(x, y.nan_to_num(neginf=-float("inf"))) < device.tolerance


@pytest.mark.parametrize(("name", "family"), BY)
def test_rows_of_no_sequence_are_nothing_in_every_call(name: str, family: str, module: Any, device: Device) -> None:
    """Before the first sequence, behind the last, NaN in all inputs: 0, an LSE of -inf and no gradient."""
    lengths, stray = [n * device.times for n in (37, 0, 50)], 5
    bounds = torch.tensor([stray, *lengths]).cumsum(0).int().to(device.name)
    parts = [dense.inputs(module, n, n, device.dtype, batch=1) for n in lengths]
    heads, rows = module.PATTERN["heads"], sum(lengths)
    weights = torch.randn(rows, heads, module.PATTERN["v_head_dim"]).to(device.dtype), torch.randn(heads, rows)
    leaves = [torch.cat(x, 2)[0].requires_grad_() for x in zip(*parts, strict=True)]
    firsts = 0, lengths[0], lengths[0]
    own = [[x[None, :, first : first + n] for x in leaves] for first, n in zip(firsts, lengths, strict=True)]
    each = [dense.attention(*part, module.dense_mask(n)) for part, n in zip(own, lengths, strict=True) if n]
    out, lse = (torch.cat([x[n][0] for x in each], 1) for n in range(2))
    kept = ~lse.isneginf()
    both = weights[0].double().transpose(0, 1), weights[1].double()[kept]
    grads = torch.autograd.grad((out, lse[kept]), leaves, both)

    def around(x: Tensor, dim: int = 0) -> Tensor:
        """With rows of NaN on both sides."""
        lost = torch.full_like(x.narrow(dim, 0, stray), float("nan"))
        return torch.cat((lost, x, lost), dim).contiguous().to(device.name)

    given = [around(x.detach().transpose(0, 1).to(device.dtype)) for x in leaves]
    on_device = around(weights[0]), around(weights[1] * kept, 1)

    def attend(*x: Tensor) -> tuple[Tensor, Tensor]:
        return module.attention_varlen(*x, bounds, bounds, max(lengths), max(lengths), return_lse=True)

    found_out, found_lse, *found = repeated(device, attend, given, on_device)
    for x in (found_out, *found):
        assert (x[:stray] == 0).all() and (x[-stray:] == 0).all()
    assert found_lse[:, :stray].isneginf().all() and found_lse[:, -stray:].isneginf().all()
    inside = slice(stray, stray + rows)
    for x, y in zip((found_out, *found), (out, *grads), strict=True):
        assert dense.error(x[inside].transpose(0, 1), y) < device.tolerance
    assert dense.error(found_lse[:, inside], lse) < device.tolerance


@pytest.mark.parametrize(("name", "family"), BY[:3])
def test_pages_are_read_the_same_in_every_call(name: str, family: str, module: Any, device: Device) -> None:
    """Prefill of one chunk and of one whole prompt, then a step of each request, with sinks and without; in between
    another batch, which another recipe is of."""
    page, lengths, news = (
        max(module.PATTERN["block"], 16),
        [n * device.times for n in (61, 33)],
        [17, 33 * device.times],
    )
    q, k, v = dense.inputs(module, max(lengths), max(lengths), device.dtype)
    caches = [x.to(device.name) for x in dense.paged(k, v, lengths, page, device.dtype)]
    table, seen = caches.pop(), torch.tensor(lengths, dtype=torch.int32, device=device.name)
    chunks = [q[r, :, n - new : n] for r, (n, new) in enumerate(zip(lengths, news, strict=True))]
    rows = torch.cat(chunks, 1).transpose(0, 1).to(device.name, device.dtype).contiguous()
    starts = torch.tensor([0, *news]).cumsum(0).int().to(device.name)
    sinks = torch.tensor([0.5, -1.0, 3.0, 0.0])
    last = torch.stack([x[:, -1] for x in chunks])[:, None].to(device.name, device.dtype).contiguous()
    true = [
        dense.attention(
            q[r : r + 1, :, n - new : n], k[r : r + 1, :, :n], v[r : r + 1, :, :n], module.dense_mask(new, n)
        )
        for r, (n, new) in enumerate(zip(lengths, news, strict=True))
    ]
    for given in (None, sinks.to(device.name)):
        wanted = [x if given is None else with_sinks(*x, sinks.double()) for x in true]
        calls: list[list[Tensor]] = []
        for _ in range(CALLS):
            out, lse = module.attention_paged(
                rows, *caches, table, seen, starts, max_q_len=max(news), sinks=given, return_lse=True
            )
            step = module.decode(last, *caches, table, seen, sinks=given)
            module.decode(last[:1], *caches, table[:1], seen[:1], sinks=given)
            calls.append([out, lse, step])
        assert all(torch.equal(x, y) for each in calls[1:] for x, y in zip(each, calls[0], strict=True))
        out, lse, step = calls[-1]
        assert dense.error(out.transpose(0, 1), torch.cat([x[0] for x, _ in wanted], 1)) < device.tolerance
        assert dense.error(lse, torch.cat([x[0] for _, x in wanted], 1)) < device.tolerance
        assert dense.error(step[:, 0], torch.stack([x[0, :, -1] for x, _ in wanted])) < device.tolerance
