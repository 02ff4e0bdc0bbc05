"""Another default device or type of torch, as models are made under: what a package computes is the same."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from tests.package.made import HEAD, compiled

TEXT = (
    HEAD.replace("small", "defaults")
    + "shards: [{heads: 0-1, local: 21 tokens, stride: 4, offset: h}, {heads: rest, local: 2, sink: 1}]"
)
TABLE = HEAD.replace("small", "defaults_table") + "shards: [{heads: all, local: 2, random: {blocks: 1, seed: h}}]"
LENGTH = 130


def numbers() -> list[Tensor]:
    make = torch.Generator().manual_seed(1)
    shapes = ((1, 4, LENGTH, 16), (1, 2, LENGTH, 16), (1, 2, LENGTH, 16), (1, 4, LENGTH, 16))
    return [torch.randn(shape, generator=make, dtype=torch.float32, device="cpu") for shape in shapes]


def ints(*x: int) -> Tensor:
    return torch.tensor(x, dtype=torch.int32, device="cpu")


def attention(p: ModuleType) -> list[Tensor]:
    q, k, v, dout = numbers()
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out, lse = p.attention(*leaves, return_lse=True)
    return [out, lse, *torch.autograd.grad(out, leaves, dout)]


def varlen(p: ModuleType) -> list[Tensor]:
    q, k, v, dout = (x[0].transpose(0, 1) for x in numbers())
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    out, lse = p.attention_varlen(*leaves, ints(0, 40, 120), ints(0, 40, 120), 80, 80, return_lse=True)
    return [out, lse, *torch.autograd.grad(out, leaves, dout)]


def paged(p: ModuleType) -> list[Tensor]:
    q, k, v, _ = numbers()
    caches = [x[0, :, :128].transpose(0, 1).contiguous().unflatten(0, (8, 16)) for x in (k, v)]
    table = ints(*range(8)).view(1, 8)
    newest = q[:, :, :40].transpose(1, 2)
    many = p.attention_paged(newest[0], *caches, table, ints(120), ints(0, 40), return_lse=True)
    return [*many, *p.decode(newest[:, :2], *caches, table, ints(100), return_lse=True)]


def cache(p: ModuleType) -> list[Tensor]:
    """Prompts of different lengths, chunks, single tokens, a fork; with memory for all, and without."""
    found = []
    for most in (None, 200):
        q, k, v = (torch.cat((x, x)) for x in numbers()[:3])
        kept = p.KVCache(2, max_length=most)
        for first, stop, lengths in ((0, 70, [70, 30]), (70, 110, [40, 7]), (110, 111, None), (111, 112, [1, 0])):
            found.append(kept.step(*(x[:, :, first:stop] for x in (q, k, v)), lengths=lengths))
        kept = kept.fork([1, -1, 0])
        found.append(kept.step(*(torch.cat((x, x[:1]))[:, :, 112:113] for x in (q, k, v))))
        found.append(kept.lengths)
    return found


def split(p: ModuleType) -> list[Tensor]:
    plan = p.exchange_plan(LENGTH, 3)
    return [*plan.needs[2], *plan.blocks(0, 2), ints(plan.tokens(0, 2), plan.bytes(0, 1))]


def merged(p: ModuleType) -> list[Tensor]:
    q, _, _, other = numbers()
    return list(p.combine([q, other], [q[..., 0], other[..., 0]]))


CALLS = [attention, varlen, paged, cache, split, merged]


def check(call: Callable[[ModuleType], list[Tensor]], text: str) -> None:
    """First under other defaults, so that nothing was kept from before; what was kept then serves the second time."""
    _, package = compiled(text)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = call(package)
    finally:
        torch.set_default_dtype(torch.float32)
    for x, true in zip(found, call(package), strict=True):
        assert x.device.type == "cpu" and x.dtype == true.dtype and torch.equal(x, true)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("text", [TEXT, TABLE], ids=["arithmetic", "table"])
def test_on_the_cpu(text: str, call: Callable[[ModuleType], list[Tensor]], cpu_path: str) -> None:
    if call is cache and text is TABLE:
        pytest.skip("a cache needs rows that take up nothing again")
    check(call, text.replace("defaults", f"defaults_{cpu_path}_{call.__name__}"))


@pytest.mark.interpret
@pytest.mark.parametrize("text", [TEXT, TABLE], ids=["arithmetic", "table"])
def test_kernels(text: str) -> None:
    for call in (attention, paged):
        check(call, text.replace("defaults", f"defaults_kernels_{call.__name__}"))
