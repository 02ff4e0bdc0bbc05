"""Calls without an operator: taken where nobody would see one, never where somebody would."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.package.made import compiled, tensors

OPERATORS = {
    "ops": ("_open_forward", "_open_backward"),
    "ops_varlen": ("_open_varlen", "_open_varlen_backward"),
    "ops_paged": ("_open_paged",),
}


class Seen(TorchDispatchMode):
    """The package's operators that a call goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


class Passing(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Own(Tensor):
    """A subclass, as a user's."""


@pytest.fixture
def plain() -> Callable[..., bool]:
    _, package = compiled("strided")
    return importlib.import_module(f"{package.__name__}.api.dispatch").is_plain


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which operators were entered."""
    _, package = compiled("strided")
    found: list[str] = []
    for part, names in OPERATORS.items():
        module = importlib.import_module(f"{package.__name__}.api.{part}")
        for name in names:
            operator = getattr(module, name)

            def entered(*given: Any, operator: Any = operator, name: str = name) -> Any:
                found.append(name)
                return operator(*given)

            monkeypatch.setattr(module, name, entered)
    return found


def test_inference_enters_no_operator_and_gives_the_same(calls: list[str]) -> None:
    pattern, package = compiled("strided")
    q, k, v = tensors(pattern, 37, batch=2, dtype=torch.float32)
    with torch.no_grad():
        out, lse = package.attention(q, k, v, return_lse=True)
        assert calls == []
        with Seen() as seen:
            wanted = package.attention(q, k, v, return_lse=True)
    assert calls == ["_open_forward"] and any("attention" in name for name in seen.names)
    assert torch.equal(out, wanted[0]) and torch.equal(lse, wanted[1])


def test_training_enters_no_operator_and_gives_the_same(calls: list[str]) -> None:
    pattern, package = compiled("strided")
    leaves = [x.requires_grad_() for x in tensors(pattern, 37, batch=2, dtype=torch.float32)]
    weights = torch.randn(2, pattern.heads, 37)

    def loss() -> Tensor:
        out, lse = package.attention(*leaves, return_lse=True)
        return out.square().sum() + (weights * lse).sum()

    grads = torch.autograd.grad(loss(), leaves)
    assert calls == []
    with Seen() as seen:
        wanted = torch.autograd.grad(loss(), leaves)
    assert calls == ["_open_forward", "_open_backward"] and any("attention" in name for name in seen.names)
    assert all(torch.equal(x, y) for x, y in zip(grads, wanted, strict=True))
    with pytest.raises(NotImplementedError, match="second"):  # where it is differentiated once more, that is refused
        torch.autograd.grad(sum(x.sum() for x in torch.autograd.grad(loss(), leaves, create_graph=True)), leaves)
    assert calls[2:] == ["_open_backward"]


def test_packed_training_enters_no_operator_and_gives_the_same(calls: list[str]) -> None:
    pattern, package = compiled("strided")
    leaves = [torch.randn(40, n, pattern.head_dim).requires_grad_() for n in (pattern.heads, *[pattern.kv_heads] * 2)]
    starts = torch.tensor([0, 7, 40], dtype=torch.int32)

    def loss() -> Tensor:
        return package.attention_varlen(*leaves, starts, starts, 33, 33).square().sum()

    grads = torch.autograd.grad(loss(), leaves)
    assert calls == []
    with Seen():
        wanted = torch.autograd.grad(loss(), leaves)
    assert calls == ["_open_varlen", "_open_varlen_backward"]
    assert all(torch.equal(x, y) for x, y in zip(grads, wanted, strict=True))


@pytest.mark.parametrize("is_packed", [False, True])
def test_training_with_sinks_enters_no_operator_and_gives_the_same(is_packed: bool, calls: list[str]) -> None:
    pattern, package = compiled("strided")
    inputs = [*tensors(pattern, 37, dtype=torch.float32), torch.randn(pattern.heads)]
    if is_packed:
        inputs[:3] = (x[0].transpose(0, 1).contiguous() for x in inputs[:3])
    leaves, starts = [x.requires_grad_() for x in inputs], torch.tensor([0, 7, 37], dtype=torch.int32)

    def loss() -> Tensor:
        *given, sinks = leaves
        if is_packed:
            return package.attention_varlen(*given, starts, starts, 30, 30, sinks=sinks).square().sum()
        return package.attention(*given, sinks=sinks).square().sum()

    grads = torch.autograd.grad(loss(), leaves)
    assert calls == []
    with Seen():
        wanted = torch.autograd.grad(loss(), leaves)
    assert len(calls) == 2
    assert all(torch.equal(x, y) and x.abs().sum() > 0 for x, y in zip(grads, wanted, strict=True))


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_saved_for_a_short_derivative_may_lie_elsewhere(kept: bool) -> None:
    """Tensors come back from hooks as copies, and a graph is differentiated twice or once."""
    pattern, package = compiled("strided")
    leaves = [x.requires_grad_() for x in tensors(pattern, 21, batch=1, dtype=torch.float32)]
    wanted = torch.autograd.grad(package.attention(*leaves).sum(), leaves)
    with torch.autograd.graph.saved_tensors_hooks(torch.clone, torch.clone):
        total = package.attention(*leaves).sum()
    found = torch.autograd.grad(total, leaves, retain_graph=kept)
    if kept:
        found = torch.autograd.grad(total, leaves)
    else:
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(total, leaves)
    assert all(torch.equal(x, y) for x, y in zip(found, wanted, strict=True))


def test_without_the_output_only_the_lse_is_differentiated() -> None:
    pattern, package = compiled("strided")
    leaves = [x.requires_grad_() for x in tensors(pattern, 21, batch=1, dtype=torch.float32)]
    _, lse = package.attention(*leaves, return_lse=True)
    found = torch.autograd.grad(lse.sum(), leaves[:2])
    with Seen():
        _, lse = package.attention(*leaves, return_lse=True)
        wanted = torch.autograd.grad(lse.sum(), leaves[:2])
    assert all(torch.equal(x, y) and x.abs().sum() > 0 for x, y in zip(found, wanted, strict=True))


def test_decoding_enters_no_operator_and_gives_the_same(calls: list[str]) -> None:
    pattern, package = compiled("strided")
    caches = torch.randn(2, 6, 16, pattern.kv_heads, pattern.head_dim).unbind()
    q, table = torch.randn(2, 1, pattern.heads, pattern.head_dim), torch.arange(6, dtype=torch.int32).view(2, 3)
    lengths = torch.tensor([41, 7], dtype=torch.int32)
    out, lse = package.decode(q, *caches, table, lengths, return_lse=True)
    assert calls == []
    with Seen():
        wanted = package.decode(q, *caches, table, lengths, return_lse=True)
    assert calls == ["_open_paged"]
    assert torch.equal(out, wanted[0]) and torch.equal(lse, wanted[1]) and out.shape == q.shape


@pytest.mark.parametrize("around", [nullcontext, torch.no_grad, torch.inference_mode])
def test_plain_tensors_are_plain(around: Any, plain: Callable[..., bool]) -> None:
    with around():
        assert plain(torch.randn(3), torch.nn.Parameter(torch.randn(3), requires_grad=False))


@pytest.mark.parametrize("around", [Seen, Passing, torch._subclasses.FakeTensorMode])
def test_under_a_mode_nothing_is(around: Any, plain: Callable[..., bool]) -> None:
    x = torch.randn(3)
    with around():
        assert not plain(x)
    assert plain(x)


def test_other_tensors_are_not(plain: Callable[..., bool]) -> None:
    x = torch.randn(3)
    assert not plain(x, x.as_subclass(Own)) and not plain(torch._neg_view(x)) and not plain(x.clone().requires_grad_())
    with torch.no_grad():
        assert plain(x.clone().requires_grad_())
    with torch.autocast("cpu"):
        assert not plain(x)
    assert not plain(torch._subclasses.FakeTensorMode().from_tensor(x))


def test_nor_is_anything_that_is_transformed_or_traced(plain: Callable[..., bool]) -> None:
    seen: list[bool] = []

    def look(x: Tensor) -> Tensor:
        seen.append(plain(x))
        return x.sum()

    x = torch.randn(2, 3)
    torch.func.vmap(look)(x)
    torch.func.grad(look)(x)
    torch.func.functionalize(look)(x)
    torch.jit.trace(look, (x,), check_trace=False)
    torch.compile(look, backend="eager", fullgraph=True)(x)
    assert seen and not any(seen)


def test_a_negated_view_is_read_as_it_is() -> None:
    pattern, package = compiled("strided")
    q, k, v = tensors(pattern, 21, batch=1, dtype=torch.float32)
    assert torch.equal(package.attention(torch._neg_view(q), k, v), package.attention(-q, k, v))
