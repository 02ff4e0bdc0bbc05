"""Attention in parts: some heads (tensor parallelism), or some keys (context parallelism) and `combine`."""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from patterncc import reference
from patterncc.language.model import Pattern
from tests.package.made import TOLERANCE, check, compiled, exact, off, run, tensors, weights_like

FP32 = TOLERANCE[torch.float32]


@pytest.mark.parametrize("name", ["strided", "some_dense", "starved", "drawn", "both_ways_tokens"])
def test_halves_of_the_heads_are_the_whole(name: str, poisoned: None) -> None:
    """Two ranks with a KV head each: `head_offset` says which heads they have. Forward and backward."""
    pattern, package = compiled(name)
    q, k, v = tensors(pattern, 91)
    weights = weights_like((q, k, v))
    true = exact(pattern, (q, k, v), weights)
    half, share = pattern.heads // 2, pattern.kv_heads // 2
    for rank in range(2):
        heads, kv = slice(rank * half, (rank + 1) * half), slice(rank * share, (rank + 1) * share)
        part = q[:, heads], k[:, kv], v[:, kv]
        found = run(
            lambda q, k, v, at=rank * half: package.attention(q, k, v, head_offset=at, return_lse=True),
            part,
            (weights[0][:, heads], weights[1][:, heads]),
        )
        wanted = {key: x[:, kv if key in ("dk", "dv") else heads] for key, x in true.items()}
        check(found, wanted, FP32)


def test_a_rank_may_cut_a_group(poisoned: None) -> None:
    """Heads 1 and 2 of groups of two: they read both KV heads, one query head each. Or one head alone."""
    pattern, package = compiled("strided")
    q, k, v = tensors(pattern, 91)
    weights = weights_like((q, k, v))
    for first, last, kv in ((1, 3, slice(0, 2)), (3, 4, slice(1, 2)), (1, 4, slice(0, 2))):
        part = q[:, first:last], k[:, kv], v[:, kv]
        some = weights[0][:, first:last], weights[1][:, first:last]
        found = run(
            lambda q, k, v, first=first: package.attention(q, k, v, head_offset=first, return_lse=True), part, some
        )
        check(found, exact(pattern, part, some, head_offset=first), FP32)


def over_ranges(package: ModuleType, cuts: list[int], q: Tensor, k: Tensor, v: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(out, lse) of each range of keys."""
    q_start = k.shape[2] - q.shape[2]
    return [
        package.attention(
            q, k[:, :, a:b], v[:, :, a:b], return_lse=True, q_start=q_start, kv_start=a if a < b else a // 16 * 16
        )
        for a, b in pairwise(cuts)
    ]


@pytest.mark.parametrize("cuts", [[0, 64, 150], [0, 16, 32, 96, 96, 150], [0, 150], [0, 144, 150]], ids=str)
@pytest.mark.parametrize("name", ["strided", "tokens", "starved", "drawn", "both_ways", "globals"])
def test_ranges_of_keys_are_merged(name: str, cuts: list[int], poisoned: None) -> None:
    """All gradients too; ranges of which queries see nothing, and a range without keys, are among them."""
    pattern, package = compiled(name)
    inputs = tensors(pattern, 150)
    weights = weights_like(inputs)
    found = run(lambda *x: package.combine(*zip(*over_ranges(package, cuts, *x), strict=True)), inputs, weights)
    check(found, exact(pattern, inputs, weights), FP32)


def part_exact(pattern: Pattern, q: Tensor, k: Tensor, v: Tensor, q_start: int, kv_start: int) -> tuple[Tensor, Tensor]:
    """Dense attention in fp64 when the first query stands at q_start and the first key at kv_start."""
    t, u = np.arange(q_start, q_start + q.shape[2]), np.arange(kv_start, kv_start + k.shape[2])
    kept = torch.stack([torch.from_numpy(reference.keeps(pattern, 0, head, t, u)) for head in range(pattern.heads)])
    k, v = (x.double().repeat_interleave(pattern.group, 1) for x in (k, v))
    scores = (q.double() @ k.mT * pattern.head_dim**-0.5).masked_fill(~kept, float("-inf"))
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp().nan_to_num(0.0) @ v, lse


@pytest.mark.parametrize(("q_start", "kv_start"), [(0, 0), (40, 16), (0, 32), (7, 96), (500, 48), (-20, 0)])
@pytest.mark.parametrize("name", ["strided", "tokens", "drawn", "globals", "both_ways", "masked"])
def test_every_part_is_what_the_definition_says(name: str, q_start: int, kv_start: int, poisoned: None) -> None:
    """Queries and keys anywhere: also such as see none of these keys, which give 0 and -inf."""
    pattern, package = compiled(name)
    q, k, v = tensors(pattern, 53, 61)
    found = package.attention(q, k, v, return_lse=True, q_start=q_start, kv_start=kv_start)
    for x, true in zip(found, part_exact(pattern, q, k, v, q_start, kv_start), strict=True):
        assert off(x, true) <= FP32


def test_a_wrong_start_is_seen() -> None:
    """Negative control of the test above: a block off, and nothing is as it should be."""
    pattern, package = compiled("strided")
    q, k, v = tensors(pattern, 53, 61)
    out = package.attention(q, k, v, q_start=40, kv_start=0)
    assert off(out, part_exact(pattern, q, k, v, 40, 16)[0]) > 1e-2


def test_combine_of_nothing_is_nothing() -> None:
    """Parts of -inf only give 0 and -inf; with gradients that are 0, not NaN."""
    _, package = compiled("strided")
    out = torch.randn(3, 2, 5, 8, requires_grad=True)
    lse = torch.full((3, 2, 5), float("-inf"), requires_grad=True)
    merged, total = package.combine(out, lse)
    assert (merged == 0).all() and (total == float("-inf")).all()
    (merged.sum() + total.masked_fill(total == float("-inf"), 0.0).sum()).backward()
    assert out.grad is not None and (out.grad == 0).all()
    assert lse.grad is not None and (lse.grad == 0).all()


def test_combine_is_exact_far_apart() -> None:
    """A part with e^-1000 of the other's weight changes nothing, and nothing overflows; order does not matter."""
    _, package = compiled("strided")
    out, lse = torch.randn(2, 1, 4, 9, 8), torch.randn(2, 1, 4, 9)
    lse[0] += 1000
    merged, total = package.combine(out, lse)
    assert torch.equal(merged, out[0]) and torch.equal(total, lse[0])
    again, same = package.combine(out.flip(0), lse.flip(0))
    assert torch.equal(again, merged) and torch.equal(same, total)


def test_combine_keeps_the_dtype_of_outputs() -> None:
    _, package = compiled("strided")
    out = torch.randn(2, 1, 4, 9, 8, dtype=torch.bfloat16)
    merged, total = package.combine(out, torch.zeros(2, 1, 4, 9))
    assert merged.dtype == torch.bfloat16 and total.dtype == torch.float32
    assert torch.allclose(total, torch.tensor(2.0).log())


def merged_parts(lses: list[list[float]], outs: list[Tensor]) -> tuple[Tensor, ...]:
    """Output, LSE and the gradients of all parts' outputs and LSEs, of two rows."""
    _, package = compiled("strided")
    leaves = [x.clone().requires_grad_() for x in outs], [torch.tensor(x).requires_grad_() for x in lses]
    out, lse = package.combine(*leaves)
    (out.sum() + lse[lse.isfinite()].sum()).backward()
    return out.detach(), lse.detach(), *(x.grad for some in leaves for x in some if x.grad is not None)


@pytest.mark.parametrize("left", [float("nan"), float("inf"), -float("inf")])
def test_a_part_that_kept_nothing_adds_nothing(left: float) -> None:
    """Whatever its output holds: 0 times that would be NaN. Nor has it a gradient."""
    none, row = -float("inf"), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    odd = torch.tensor([[left, 0.0], [5.0, left]])
    out, lse, *grads = merged_parts([[0.5, none], [none, none]], [torch.stack((row[0], odd[1])), odd])
    assert torch.equal(out, torch.stack((row[0], torch.zeros(2)))) and torch.equal(lse, torch.tensor([0.5, none]))
    assert torch.equal(grads[0], torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    assert all(x.isfinite().all() for x in grads) and not grads[1].any()


def test_infinitely_heavy_parts_share_alike() -> None:
    heavy, row = float("inf"), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    out, lse, *grads = merged_parts([[heavy, 0.0], [heavy, heavy], [7.0, 7.0]], [row, 3 * row, torch.ones(2, 2)])
    assert torch.equal(out, torch.stack((2 * row[0], 3 * row[1]))) and torch.equal(lse, torch.tensor([heavy, heavy]))
    assert all(x.isfinite().all() for x in grads)


def test_what_a_part_that_kept_something_holds_is_seen() -> None:
    """The control."""
    out, lse, *_ = merged_parts(
        [[0.5, 0.5], [-60.0, float("nan")]], [torch.ones(2, 2), torch.ones(2, 2).mul(float("nan"))]
    )
    assert out.isnan().all() and lse[0] == 0.5 and lse[1].isnan()


def test_of_the_gradient_nothing_is_lost() -> None:
    """The heaviest part's LSE has a gradient, too."""
    outs, lses = torch.randn(3, 4, 2, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    _, package = compiled("strided")
    leaves = [x.requires_grad_() for x in (outs, lses)]
    assert torch.autograd.gradcheck(lambda a, b: package.combine(a, b, packed=False), leaves)
