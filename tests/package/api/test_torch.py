"""Packages inside torch: operator checks, compilation, export, checkpointing, autocast, and limits that are said."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.package.api.small_layer import layer, operators
from tests.package.made import TOLERANCE, compiled, exact, off, run, tensors, weights_like

FP32 = TOLERANCE[torch.float32]
CU = torch.tensor([0, 5, 5, 46], dtype=torch.int32)


@pytest.mark.parametrize(
    ("name", "dtype", "strided"),
    [("strided", torch.float32, True), ("strided", torch.bfloat16, False), ("values", torch.float32, True)],
)
def test_opcheck_of_attention(name: str, dtype: torch.dtype, strided: bool) -> None:
    """Schema, fake tensors, autograd registration, and ahead-of-time dispatch with dynamic shapes."""
    pattern, package = compiled(name)
    q, k, v = (x.clone() for x in tensors(pattern, 37, batch=2, dtype=dtype))
    if strided:
        q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
    ops = operators(package)
    place = (0, 0.25, 0, 0, 0)
    torch.library.opcheck(ops.attention.default, (*(x.requires_grad_() for x in (q, k, v)), *place))
    q, k, v = (x.detach() for x in (q, k, v))
    out, lse = package.attention(q, k, v, scale=0.25, return_lse=True)
    for dlse in (None, torch.randn_like(lse)):
        arguments = (torch.randn_like(out), dlse, q, k, v, out, lse, *place)
        torch.library.opcheck(ops.attention_backward.default, arguments)
    sinks = torch.randn(pattern.heads)
    leaves = [x.clone().requires_grad_() for x in (q, k, v, sinks)]
    torch.library.opcheck(ops.attention.default, (*leaves[:3], *place, leaves[3]))
    torch.library.opcheck(ops.attention_backward.default, (*arguments, sinks))


@pytest.mark.parametrize("name", ["tokens", "values"])
def test_opcheck_of_varlen_and_paged(name: str) -> None:
    pattern, package = compiled(name)
    dim, v_dim = pattern.head_dim, pattern.v_head_dim
    q, k, v = (torch.randn(46, n, width) for n, width in ((4, dim), (2, dim), (2, v_dim)))
    rest = (CU, CU, 41, 41)
    ops = operators(package)
    torch.library.opcheck(
        ops.attention_varlen.default, (*(x.clone().requires_grad_() for x in (q, k, v)), *rest, 0, 0.25, 0)
    )
    out, lse = package.attention_varlen(q, k, v, *rest, scale=0.25, return_lse=True)
    for dlse in (None, torch.randn_like(lse)):
        arguments = (torch.randn_like(out), dlse, q, k, v, out, lse, *rest, 0, 0.25, 0)
        torch.library.opcheck(ops.attention_varlen_backward.default, arguments)
    sinks = torch.randn(4)
    leaves = [x.clone().requires_grad_() for x in (q, k, v, sinks)]
    torch.library.opcheck(ops.attention_varlen.default, (*leaves[:3], *rest, 0, 0.25, 0, leaves[3]))
    torch.library.opcheck(ops.attention_varlen_backward.default, (*arguments, sinks))
    caches = torch.randn(4, 16, 2, dim), torch.randn(4, 16, 2, v_dim)
    where = torch.arange(4, dtype=torch.int32)[None], torch.tensor([61]).int(), torch.tensor([0, 46]).int()
    torch.library.opcheck(ops.attention_paged.default, (q, *caches, *where, 46, 0, 0.25, 0))
    torch.library.opcheck(ops.attention_paged.default, (q, *caches, *where, 46, 0, 0.25, 0, sinks))


@pytest.mark.parametrize("name", ["strided", "both_ways", "values", "scaled"])
def test_one_graph_for_every_length(name: str) -> None:
    """Compiled without graph breaks; new lengths and batches do not compile again; gradients through out and LSE."""
    pattern, package = compiled(name)
    graphs = 0

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        nonlocal graphs
        graphs += 1
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        out, lse = package.attention(q * 2, k, v, return_lse=True)
        return out * 1.5, lse

    torch._dynamo.reset()
    once = torch.compile(attend, fullgraph=True, backend=backend, dynamic=True)
    for batch, queries, keys in ((2, 37, 37), (3, 50, 50), (2, 129, 129), (2, 21, 129)):
        inputs = tensors(pattern, queries, keys, batch=batch)
        weights = weights_like(inputs)
        found, true = run(once, inputs, weights), run(attend, inputs, weights)
        for key, x in found.items():
            assert torch.equal(x, true[key]), key
    assert graphs <= 2  # one for queries that are as many as the keys, one for any


def test_varlen_and_decode_compile() -> None:
    pattern, package = compiled("strided")
    torch._dynamo.reset()
    q, k, v = (torch.randn(46, n, pattern.head_dim) for n in (4, 2, 2))
    weights = torch.randn_like(q), torch.randn(4, 46)
    varlen = lambda q, k, v: package.attention_varlen(q, k, v, CU, CU, 41, 41, return_lse=True)  # noqa: E731
    found = run(torch.compile(varlen, fullgraph=True, backend="aot_eager"), (q, k, v), weights)
    for key, x in run(varlen, (q, k, v), weights).items():
        assert torch.equal(x, found[key]), key
    caches = torch.randn(2, 8, 16, 2, pattern.head_dim).unbind()
    where = torch.arange(8, dtype=torch.int32).view(2, 4), torch.tensor([61, 17]).int()
    decode = partial(package.decode, torch.randn(2, 1, 4, pattern.head_dim), *caches, *where)
    assert torch.equal(torch.compile(decode, fullgraph=True, backend="aot_eager")(), decode())


def test_export_with_a_dynamic_length() -> None:
    """Exported once, saved and loaded, run at other lengths."""
    model = layer().eval()
    length = torch.export.Dim("length", min=2, max=4096)
    program = torch.export.export(model, (torch.randn(2, 40, 32),), dynamic_shapes=({1: length},), strict=False)
    stored = io.BytesIO()
    torch.export.save(program, stored)
    stored.seek(0)
    again = torch.export.load(stored).module()
    for n in (40, 97):
        x = torch.randn(2, n, 32)
        assert torch.equal(again(x), model(x))


@pytest.mark.slow
def test_inductor() -> None:
    """Compiled to machine code, with gradients: those of eager up to the rounding of fused projections."""
    model = layer()
    torch._dynamo.reset()
    compiled_model = torch.compile(model, fullgraph=True, dynamic=True)
    for n in (40, 97):
        x = torch.randn(2, n, 32)
        grads = []
        for f in (model, compiled_model):
            model.zero_grad()
            f(x).square().sum().backward()
            grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        assert len(grads[0]) == 8
        # All as one vector: the bias of k has a gradient of 0, but for rounding.
        found, true = (torch.cat([grad.flatten() for grad in each]) for each in grads)
        assert (found - true).norm() <= 1e-5 * true.norm()


@pytest.mark.slow
def test_aot_inductor(tmp_path: Path) -> None:
    model = layer().eval()
    length = torch.export.Dim("length", min=2, max=4096)
    with torch.no_grad():
        program = torch.export.export(model, (torch.randn(2, 40, 32),), dynamic_shapes=({1: length},), strict=False)
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "layer.pt2"))
        runner = torch._inductor.aoti_load_package(path)
        for n in (40, 97):
            x = torch.randn(2, n, 32)
            assert off(runner(x), model(x).double()) <= FP32


def test_two_packages_of_one_name_do_not_meet() -> None:
    """Their operators live side by side: each computes its own pattern."""
    (one, a), (other, b) = compiled("strided"), compiled("dilated")
    assert one.name == other.name and operators(a) is not operators(b)
    inputs = tensors(one, 90)
    weights = weights_like(inputs)
    for pattern, package in ((one, a), (other, b)):
        assert off(package.attention(*inputs), exact(pattern, inputs, weights)["out"]) <= FP32
