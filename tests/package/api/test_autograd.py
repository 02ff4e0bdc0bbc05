"""Gradients inside torch: checkpointing, autocast, transforms of functions, and limits that are said."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from tests.package.api.small_layer import layer, operators
from tests.package.made import TOLERANCE, check, compiled, exact, run, tensors, weights_like

CU = torch.tensor([0, 5, 5, 46], dtype=torch.int32)


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
