"""torch.func's transformations: the gradients of autograd, and what there is not is said."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from tests.package.made import compiled, tensors

CU = torch.tensor([0, 5, 30], dtype=torch.int32)
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap runs operators one by one


def loss_of(package: ModuleType, name: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A loss of the output and of the LSE."""

    def loss(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if name == "attention":
            out, lse = package.attention(q, k, v, return_lse=True)
        else:
            q, k, v = (x[0].transpose(0, 1) for x in (q, k, v))
            out, lse = package.attention_varlen(q, k, v, CU, CU, 25, 25, return_lse=True)
        return out.square().sum() + lse.masked_fill(lse.isinf(), 0.0).sin().sum()

    return loss


def by_autograd(loss: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    inputs = tuple(x.detach().requires_grad_() for x in inputs)
    return torch.autograd.grad(loss(*inputs), inputs)


@pytest.mark.parametrize("name", ["attention", "attention_varlen"])
def test_grad_is_that_of_autograd(name: str) -> None:
    pattern, package = compiled("strided")
    loss, inputs = loss_of(package, name), tensors(pattern, 30)
    found, true = torch.func.grad(loss, argnums=(0, 1, 2))(*inputs), by_autograd(loss, *inputs)
    assert all(torch.equal(a, b) for a, b in zip(found, true, strict=True)) and found[0].norm() > 1
    pulled = torch.func.vjp(loss, *inputs)[1](torch.tensor(2.0))
    assert all(torch.equal(a, 2 * b) for a, b in zip(pulled, true, strict=True))


@pytest.mark.parametrize("name", ["attention", "attention_varlen"])
def test_gradients_of_each_sample(name: str) -> None:
    """vmap over grad, over all inputs and over q alone."""
    pattern, package = compiled("strided")
    loss, inputs = loss_of(package, name), [torch.stack([x, x * 2, -x]) for x in tensors(pattern, 30)]
    found = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1, 2)))(*inputs)
    for n in range(3):
        true = by_autograd(loss, *(x[n] for x in inputs))
        assert all(torch.allclose(a[n], b, rtol=1e-5, atol=1e-6) for a, b in zip(found, true, strict=True))
    one = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None, None))(inputs[0], inputs[1][0], inputs[2][0])
    assert torch.allclose(one[0], found[0][0], rtol=1e-5, atol=1e-6) and not torch.allclose(one[1], found[0][1])


def test_what_there_is_not_is_said() -> None:
    pattern, package = compiled("strided")
    loss, (q, k, v) = loss_of(package, "attention"), tensors(pattern, 20)
    with pytest.raises(NotImplementedError, match="small: attention has no second derivative"):
        torch.func.grad(lambda q: torch.func.grad(loss)(q, k, v).sum())(q)
    with pytest.raises(NotImplementedError, match="small: attention has no forward-mode derivative"):
        torch.func.hessian(loss)(q, k, v)
    cache, table, lengths = torch.zeros(1, 16, 2, 16), torch.zeros(1, 1).int(), torch.tensor([9]).int()
    with pytest.raises(NotImplementedError, match="small: paged attention has no gradient; use attention"):
        torch.func.grad(lambda q: package.decode(q, cache, cache, table, lengths).sum())(torch.zeros(1, 1, 4, 16))
