"""Of `launched.py`: packed sequences, whose calls launch what the first one did."""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any

import torch

from tests.benchmarks.seen import GIVEN, are_alike, differing, launches, twice


def is_refused(call: Any, *given: Any) -> bool:
    try:
        call(*given)
    except (TypeError, ValueError):
        return True
    return False


def packed(package: ModuleType, recipes: dict[Any, Any]) -> dict[str, bool]:
    """The same for packed sequences, whose lists are one tensor or two. Other shapes, lengths and lists are others."""
    q, k, v = torch.randn(40, 4, 16), *torch.randn(2, 40, 2, 16)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    starts, others = torch.tensor([[0, 7, 33, 40], [1, 7, 33, 39]], dtype=torch.int32).unbind()
    starts, others = starts.clone(), others.clone()  # at addresses that kernels take
    call, alike = package.attention_varlen, partial(are_alike, recipes)
    recipes.clear()
    found: dict[str, bool] = {}
    with torch.no_grad():
        one, two = partial(call, q, k, v, starts, starts, 33, 33), partial(call, q, k, v, others, others, 33, 33)
        found["varlen"] = alike(one, two)
        apart = partial(call, q, k, v, starts, others, 33, 33), partial(call, q, k, v, others, starts, 33, 33)
        found["varlen of two lists"] = alike(*apart)
        given = {x.data_ptr() for x in (starts, others)} & set(launches(apart[1])[0])
        found["varlen, both lists"] = len(given) == 2
        before = len(recipes)
        wrong = (starts.float(), starts), (starts[None], starts), (starts[:3], starts), ([0, 40], starts)
        found["mistakes are refused"] = all(is_refused(call, q, k, v, *lists, 33, 33) for lists in wrong)
        found["mistakes are refused"] &= is_refused(call, q, k[..., :8], v, starts, starts, 33, 33)
        twice(call, q, k, v, starts, starts, 33, 34)
        found["varlen of other lengths"] = len(recipes) == before + 1
    recipes.clear()
    found["varlen training"] = alike(partial(call, *leaves, starts, starts, 33, 33))
    out, lse = call(*leaves, starts, starts, 33, 33, return_lse=True)
    of_out, of_lse = torch.randn(2, *out.shape), torch.randn(2, *lse.shape)
    backward = [partial(torch.autograd.grad, out, leaves, of_out[n], retain_graph=True) for n in range(2)]
    found["varlen backward"] = alike(*backward)
    pairs = zip(of_out, of_lse, strict=True)
    both = [partial(torch.autograd.grad, (out, lse), leaves, pair, retain_graph=True) for pair in pairs]
    found["varlen backward, and of the LSE"] = alike(*both)
    half = [x.detach().half().requires_grad_() for x in leaves]
    out = call(*half, starts, starts, 33, 33)
    rounded = [partial(torch.autograd.grad, out, half, x.half(), retain_graph=True) for x in of_out]
    found["varlen backward, rounded"] = alike(*rounded) and len(GIVEN) > 4
    return found


def sunk(package: ModuleType, recipes: dict[Any, Any]) -> dict[str, bool]:
    """The same with sinks, whatever they are; wrong ones are refused as ever."""
    q, k, v = torch.randn(2, 4, 48, 16), *torch.randn(2, 2, 2, 48, 16)
    leaves, sinks = [x.clone().requires_grad_() for x in (q, k, v)], [torch.randn(4).requires_grad_() for _ in range(2)]
    token, caches = torch.zeros(2, 1, 4, 16), torch.zeros(2, 600, 16, 2, 16)
    table, lengths = torch.arange(600, dtype=torch.int32).view(2, 300), torch.tensor([4000, 3], dtype=torch.int32)
    rows, starts = [torch.randn(40, n, 16) for n in (4, 2, 2)], torch.tensor([0, 7, 33], dtype=torch.int32)
    recipes.clear()
    call, alike, found = package.attention, partial(are_alike, recipes), dict[str, bool]()
    with torch.no_grad():
        found["sinks"] = alike(*(partial(call, q, k, v, sinks=s) for s in sinks))
        found["they are launched"] = [sum(s.data_ptr() in x for x in GIVEN) for s in sinks] == [0, 1]
        before = launches(partial(call, q, k, v, sinks=sinks[0]))
        after = launches(partial(call, q, k, v, sinks=torch.randn(5)[1:]))  # not at a multiple of 16 bytes
        found["at an odd address"] = differing(before, after) is not None and len(recipes) == 1
        wrong = torch.zeros(2), torch.zeros(4, 1), torch.zeros(4, dtype=torch.int32), [0.0] * 4
        found["wrong sinks are refused"] = all(is_refused(partial(call, sinks=s), q, k, v) for s in wrong)
        before = len(recipes)
        twice(call, q, k, v)
        twice(call, q, k, v, sinks=sinks[0].double())
        found["none, or of another type"] = len(recipes) == before + 2
        paged = partial(package.attention_paged, rows[0], *caches, table, lengths, starts)
        found["decode"] = alike(*(partial(package.decode, token, *caches, table, lengths, sinks=s) for s in sinks))
        found["paged"] = alike(*(partial(paged, sinks=s) for s in sinks))
        found["varlen"] = alike(
            *(partial(package.attention_varlen, *rows, starts, starts, 26, 26, sinks=s) for s in sinks)
        )
    recipes.clear()
    found["training"] = alike(*(partial(call, *leaves, sinks=s) for s in sinks))
    out = call(q, k, v, sinks=sinks[0])
    found["only the sinks have a gradient"] = out.requires_grad and len(recipes) == 1
    out, gradients = call(*leaves, sinks=sinks[1]), torch.randn(2, *out.shape)
    two = [partial(torch.autograd.grad, out, [*leaves, sinks[1]], x, retain_graph=True) for x in gradients]
    found["backward"] = alike(*two)
    leaves = [x.requires_grad_() for x in rows]
    out = package.attention_varlen(*leaves, starts, starts, 26, 26, sinks=sinks[0])
    two = [
        partial(torch.autograd.grad, out, [*leaves, sinks[0]], x, retain_graph=True) for x in torch.randn(2, 40, 4, 16)
    ]
    found["varlen backward"] = alike(*two)
    return {f"sinks, {what}": ok for what, ok in found.items()}
