"""Packages inside torch: operator checks, compilation, export, checkpointing, autocast, and limits that are said."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from tests.package.made import TOLERANCE, check, compiled, exact, off, run, tensors, weights_like

FP32 = TOLERANCE[torch.float32]
CU = torch.tensor([0, 5, 5, 46], dtype=torch.int32)


def operators(package: ModuleType) -> object:
    """The package's own namespace in torch.ops: each import of a name has another one."""
    namespace = importlib.import_module(f"{package.__name__}.api.ops")._forward._qualname.split("::")[0]
    return getattr(torch.ops, namespace)


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


class Layer(nn.Module):
    """Projections around attention, as a model has them."""

    def __init__(self, package: ModuleType, heads: int, kv_heads: int, dim: int) -> None:
        super().__init__()
        self.package, self.heads, self.dim = package, heads, dim
        self.q, self.k, self.v = (nn.Linear(32, n * dim) for n in (heads, kv_heads, kv_heads))
        self.out = nn.Linear(heads * dim, 32)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, self.dim)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return x + self.out(self.package.attention(q, k, v).transpose(1, 2).flatten(2))


def layer(name: str = "strided") -> Layer:
    pattern, package = compiled(name)
    torch.manual_seed(1)
    return Layer(package, pattern.heads, pattern.kv_heads, pattern.head_dim)


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


def gradients(model: nn.Module, x: Tensor, run_model: Callable[[Tensor], Tensor]) -> list[Tensor]:
    model.zero_grad()
    run_model(x).square().sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_checkpointing_full_and_selective(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recomputed, or attention's result kept: equal gradients. Selective runs attention forward once, full twice."""
    model, x = layer(), torch.randn(2, 61, 32)
    op = operators(model.package).attention.default
    cpu = importlib.import_module(f"{model.package.__name__}.cpu.attention")
    runs, true_forward = 0, cpu.forward

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal runs
        runs += 1
        return true_forward(*args, **kwargs)

    monkeypatch.setattr(cpu, "forward", counted)
    keep = partial(checkpoint.create_selective_checkpoint_contexts, [op])
    plain = gradients(model, x, model)
    for options, wanted in (({}, 2), ({"context_fn": keep}, 1)):
        runs = 0
        again = gradients(model, x, partial(checkpoint.checkpoint, model, use_reentrant=False, **options))
        assert runs == wanted
        assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_reentrant_checkpointing() -> None:
    model, x = layer(), torch.randn(2, 61, 32, requires_grad=True)
    plain = gradients(model, x, model)
    again = gradients(model, x, partial(checkpoint.checkpoint, model, use_reentrant=True))
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    """fp32 in: computed in autocast's dtype, gradients back in fp32. Mixed dtypes become one; fp64 stays."""
    pattern, package = compiled("strided")
    inputs = tensors(pattern, 61)
    weights = weights_like(inputs)[0], None
    with torch.autocast("cpu", dtype):
        found = run(lambda q, k, v: package.attention(q, k, v, return_lse=True), inputs, weights)
        mixed = package.attention(inputs[0].to(dtype), *inputs[1:])
        assert package.attention(*(x.double() for x in inputs)).dtype == torch.float64
        packed = package.attention_varlen(*(x[0].transpose(0, 1) for x in inputs), CU * 0, CU * 0, 0, 0)
    assert found["out"].dtype == mixed.dtype == packed.dtype == dtype
    assert found["lse"].dtype == found["dq"].dtype == torch.float32
    assert torch.equal(mixed, found["out"])
    rounded = tuple(x.to(dtype).float() for x in (*inputs, weights[0]))
    true = exact(pattern, rounded[:3], (rounded[3], None))
    check(found, true, TOLERANCE[dtype])


def test_compiled_under_autocast() -> None:
    pattern, package = compiled("strided")
    inputs = tensors(pattern, 61)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return package.attention(q, k, v)

    torch._dynamo.reset()
    assert torch.equal(torch.compile(attend, fullgraph=True, backend="aot_eager")(*inputs), attend(*inputs))


def test_a_second_derivative_is_refused() -> None:
    """Not silently 0."""
    pattern, package = compiled("strided")
    q, k, v = (x.requires_grad_() for x in tensors(pattern, 20))
    (dq,) = torch.autograd.grad(package.attention(q, k, v).square().sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="small: attention has no second derivative"):
        dq.sum().backward()
    q, k, v = (x[0].detach().transpose(0, 1).requires_grad_() for x in (q, k, v))
    cu = torch.tensor([0, 20]).int()
    (dq,) = torch.autograd.grad(package.attention_varlen(q, k, v, cu, cu, 20, 20).sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        dq.sum().backward()


def test_paged_attention_has_no_gradient() -> None:
    pattern, package = compiled("strided")
    caches = torch.randn(2, 4, 16, 2, pattern.head_dim).unbind()
    where = torch.arange(4, dtype=torch.int32)[None], torch.tensor([61]).int()
    q = torch.randn(1, 1, 4, pattern.head_dim, requires_grad=True)
    out = package.decode(q, *caches, *where)
    with pytest.raises(NotImplementedError, match="paged attention has no gradient; use attention"):
        out.sum().backward()


def test_vmap_is_what_a_loop_gives_or_says_that_it_is_not_there() -> None:
    """torch maps custom operators without a rule of their own one by one, or refuses by name; never wrong numbers."""
    pattern, package = compiled("strided")
    q, k, v = (torch.stack([x, x * 2, -x]) for x in tensors(pattern, 30))
    try:
        mapped = torch.func.vmap(package.attention)(q, k, v)
    except (RuntimeError, NotImplementedError) as error:
        assert "vmap" in str(error) or "batching rule" in str(error)
        return
    assert torch.equal(mapped, torch.stack([package.attention(*x) for x in zip(q, k, v, strict=True)]))


def test_forward_mode_is_refused() -> None:
    """torch alone would answer 0."""
    pattern, package = compiled("strided")
    q, k, v = tensors(pattern, 20)
    with pytest.raises(NotImplementedError, match="small: "):
        torch.func.jvp(lambda q: package.attention(q, k, v), (q,), (torch.ones_like(q),))


def test_two_packages_of_one_name_do_not_meet() -> None:
    """Their operators live side by side: each computes its own pattern."""
    (one, a), (other, b) = compiled("strided"), compiled("dilated")
    assert one.name == other.name and operators(a) is not operators(b)
    inputs = tensors(one, 90)
    weights = weights_like(inputs)
    for pattern, package in ((one, a), (other, b)):
        assert off(package.attention(*inputs), exact(pattern, inputs, weights)["out"]) <= FP32
