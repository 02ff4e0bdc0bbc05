"""The backward kernels in Triton's interpreter: dQ, dK and dV, and through the LSE, against fp64 autograd."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from patterncc import reference
from tests.harness import made
from tests.kernels.held import (
    CLOSED,
    GROUPS,
    HEAD,
    PATTERNS,
    TOLERANCE,
    check_backward,
    gradients,
    held,
    off,
    quick,
    tensors,
    weights,
)
from tests.strategies import patterns

pytestmark = [pytest.mark.interpret, pytest.mark.usefixtures("poisoned")]


OFTEN = (
    "strided",
    "several",
    "ranges",
    "tokens",
    "dilated",
    "starved",
    "both_ways",
    "mixed",
    "chunks_tokens",
    "capped",
    "bands_strided",
    "both_ways_drawn",
)


@pytest.mark.parametrize("name", quick(PATTERNS, *OFTEN))
def test_it_is_the_gradient_of_dense_attention(name: str) -> None:
    of = held(name)
    check_backward(of, tensors(of.pattern, 41, 75))


@pytest.mark.parametrize("name", quick(["strided", "mixed", "both_ways"], "strided", "mixed"))
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 67), (67, 67), (50, 23)])
def test_every_length(name: str, queries: int, keys: int) -> None:
    of = held(name)
    check_backward(of, tensors(of.pattern, queries, keys))


@pytest.mark.parametrize("name", quick(CLOSED, "tokens", "dilated"))
def test_a_forced_table_has_the_gradient_of_the_closed_form(name: str) -> None:
    of = held(name, "table")
    check_backward(of, tensors(of.pattern, 41, 75))


@pytest.mark.parametrize("name", ["strided", "mixed"])
def test_without_the_lse(name: str) -> None:
    of = held(name)
    check_backward(of, tensors(of.pattern, 50), through_lse=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_dtype(dtype: torch.dtype) -> None:
    """In half precision out itself is rounded, and delta is made of it: the error is that of the forward."""
    of = held("strided")
    check_backward(of, tensors(of.pattern, 41, 75, dtype=dtype))


@pytest.mark.parametrize("dim", [24, 160, 512])
def test_odd_head_dims(dim: int) -> None:
    of = held(HEAD.replace("head_dim: 16", f"head_dim: {dim}") + "shards: [{heads: all, local: 1, stride: 3}]")
    check_backward(of, tensors(of.pattern, 40))


@pytest.mark.parametrize("how", ["tokens first", "odd"])
def test_any_strides(how: str) -> None:
    of = held("several")
    check_backward(of, tensors(of.pattern, 20, 37, how=how))


@pytest.mark.parametrize(("rows", "keys"), [(16, 32), (32, 16)])
@pytest.mark.parametrize("name", quick(["strided", "mixed"], "strided"))
def test_any_tiles(name: str, rows: int, keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    of = held(name)
    configs = of.part("launch.configs")
    for kind in ("dq", "dkdv"):
        monkeypatch.setattr(configs, kind, lambda *_: configs.Config(rows, keys, 4, 2))
    check_backward(of, tensors(of.pattern, 41, 59))


@pytest.mark.parametrize("block", [128])
def test_large_blocks(block: int) -> None:
    of = held(HEAD.replace("block: 16", f"block: {block}") + "shards: [{heads: all, local: 1, stride: 2}]")
    check_backward(of, tensors(of.pattern, 33, 3 * block - 5))


def test_strides_of_several_heads_meet_in_one_kv_head() -> None:
    """Query heads of one KV head with equal, different and no strides: their rounds add to the same dK."""
    text = GROUPS.replace("heads: 4\nkv_heads: 2", "heads: 4\nkv_heads: 1")
    of = held(
        text
        + "shards: [{heads: 0-1, local: 1, stride: 2}, {heads: 2, stride: 3, offset: 1}, {heads: 3, local: 20 tokens}]"
    )
    check_backward(of, tensors(of.pattern, 40, 100))


@pytest.mark.parametrize("name", ["strided", "drawn"])
def test_two_runs_give_equal_bits(name: str) -> None:
    of = held(name)
    inputs = tensors(of.pattern, 41, 75)
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return of.package.attention(q, k, v, return_lse=True)

    once, again = (gradients(attend, inputs, dout, dlse) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(once, again, strict=True))


@pytest.mark.parametrize("name", ["strided", "both_ways"])
def test_the_gradient_of_parts_that_are_combined(name: str) -> None:
    """A part's output and LSE both carry a gradient, and the empty part's must be 0 and not NaN."""
    of = held(name)
    inputs = tensors(of.pattern, 20, 75)
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        bounds = ((0, 16), (16, 16), (16, 75))
        parts = [
            of.package.attention(q, k[:, :, a:b], v[:, :, a:b], return_lse=True, q_start=55, kv_start=a)
            for a, b in bounds
        ]
        return of.package.combine(*zip(*parts, strict=True))

    found = gradients(attend, inputs, dout, dlse)
    true = gradients(lambda q, k, v: reference.attention(of.pattern, q, k, v), [x.double() for x in inputs], dout, dlse)
    assert max(off(x, y) for x, y in zip(found, true, strict=True)) <= TOLERANCE[torch.float32]


DRAWN = {
    "text": patterns(most_layers=1, most_heads=3),
    "queries": st.integers(1, 60),
    "keys": st.integers(1, 90),
    "plan": st.sampled_from([None, "table"]),
}
QUIET = {"suppress_health_check": list(HealthCheck), "deadline": None}


def _drawn(text: str, queries: int, keys: int, plan: str | None) -> None:
    of = made.__wrapped__(text if "promises" in text else f"{text}promises: {{}}\n", plan)
    check_backward(of, tensors(of.pattern, queries, keys))


@settings(max_examples=4, derandomize=True, phases=[Phase.generate], **QUIET)
@given(**DRAWN)
def test_drawn_patterns(text: str, queries: int, keys: int, plan: str | None) -> None:
    _drawn(text, queries, keys, plan)


@pytest.mark.slow
@settings(max_examples=200, **QUIET)
@given(**DRAWN)
def test_many_drawn_patterns(text: str, queries: int, keys: int, plan: str | None) -> None:
    _drawn(text, queries, keys, plan)
