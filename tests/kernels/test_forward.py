"""The forward kernel in Triton's interpreter, through `attention`, against dense attention in fp64."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from patterncc import reference
from tests.harness import made
from tests.kernels.held import (
    CLOSED,
    HEAD,
    PATTERNS,
    PLACES,
    check_forward,
    check_lse,
    check_out,
    held,
    never_read,
    placed,
    quick,
    tensors,
)
from tests.strategies import patterns

pytestmark = [pytest.mark.interpret, pytest.mark.usefixtures("poisoned")]

LENGTHS = [(70, 110), (80, 37)]  # queries, keys


@pytest.mark.parametrize(("queries", "keys"), LENGTHS)
@pytest.mark.parametrize("name", PATTERNS)
def test_it_is_dense_attention_under_the_mask(name: str, queries: int, keys: int) -> None:
    """Tiles of 64 queries on blocks of 16 tokens: every tile spans rows that keep different columns."""
    of = held(name)
    check_forward(of, tensors(of.pattern, queries, keys))


@pytest.mark.parametrize(
    ("queries", "keys"), [(1, 1), (1, 2), (2, 1), (130, 1), (1, 130), (15, 15), (63, 63), (129, 129)]
)
def test_every_length(queries: int, keys: int) -> None:
    of = held("strided")
    check_forward(of, tensors(of.pattern, queries, keys))


@pytest.mark.parametrize("name", quick(CLOSED, "strided", "tokens", "dilated", "ranges", "chunks", "both_ways_tokens"))
def test_a_forced_table_is_the_closed_form(name: str) -> None:
    closed, table = held(name), held(name, "table")
    assert (closed.part("pattern").FORM, table.part("pattern").FORM) == ("closed", "table")
    inputs = tensors(table.pattern, 37, 105)
    check_forward(table, inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["strided", "tokens", "mixed", "starved"])
def test_every_dtype(name: str, dtype: torch.dtype) -> None:
    of = held(name)
    check_forward(of, tensors(of.pattern, 50, 71, batch=2, dtype=dtype))


@pytest.mark.parametrize("dim", [16, 24, 33, 48, 80, 96, 160, 192, 256, 512])
def test_every_head_dim(dim: int) -> None:
    """Odd ones too: what lies behind a row's last number is NaN here."""
    of = held(
        HEAD.replace("head_dim: 16", f"head_dim: {dim}") + "shards: [{heads: all, local: 1, stride: 3, offset: h}]"
    )
    check_forward(of, tensors(of.pattern, 33, 64, how="odd" if dim % 2 else "gaps"))


@pytest.mark.parametrize("how", PLACES)
def test_any_strides(how: str) -> None:
    of = held("strided")
    check_forward(of, tensors(of.pattern, 40, 51, batch=2, how=how, dtype=torch.float16))


def test_the_strides_of_q_k_and_v_have_nothing_in_common() -> None:
    of = held("several")
    q, k, v = tensors(of.pattern, 20, 31, batch=3, how="dense")
    k = placed(k[:1], "odd").expand(3, -1, -1, -1)
    check_forward(of, (placed(q, "tokens first"), k, placed(v, "gaps")))
    check_forward(of, (q.mT.contiguous().mT, k, v))  # the last dimension is not contiguous


@pytest.mark.parametrize("block", [64, 128])
@pytest.mark.parametrize("plan", ["closed", "table"])
def test_every_block(block: int, plan: str) -> None:
    """Tiles of 64 keys are gathered from two blocks, are one, and are half of one."""
    text = (
        HEAD.replace("block: 16", f"block: {block}") + "shards: [{heads: all, local: 29 tokens, stride: 2, offset: h}]"
    )
    of = held(text, plan)
    check_forward(of, tensors(of.pattern, 20, 5 * block - 3))


@pytest.mark.parametrize(("rows", "keys"), [(16, 16), (128, 32)])
@pytest.mark.parametrize("name", quick(["strided", "dilated", "tokens", "mixed"], "strided", "tokens"))
def test_any_tiles(name: str, rows: int, keys: int) -> None:
    """As GPUs take them: one interpreter's configuration would hide what another one does."""
    of = held(name)
    inputs = tensors(of.pattern, 50, 120)
    launch, config = of.part("launch.forward"), of.part("launch.configs").Config(rows, keys, 4, 2)
    place = {"layer": 0, "scale": 0.25, "head_offset": 0, "q_start": 70, "kv_start": 0}
    out, lse = launch.forward(*inputs, **place, config=config)
    true, true_lse = reference.attention(of.pattern, *inputs, scale=0.25)
    check_out(out, true, true_lse)
    check_lse(lse, true_lse)


@pytest.mark.parametrize("name", quick(PATTERNS, "strided", "tokens", "dilated", "mixed"))
def test_what_no_query_keeps_is_never_read(name: str) -> None:
    of = held(name)
    inputs = tensors(of.pattern, 20, 250)
    q, k, v = never_read(of, [x.clone() for x in inputs])
    out, lse = of.package.attention(q, k, v, return_lse=True)
    true, true_lse = reference.attention(of.pattern, *inputs)
    check_out(out, true, true_lse)
    check_lse(lse, true_lse)


@pytest.mark.parametrize("scale", [1.0, 0.0, -0.7])
def test_scale(scale: float) -> None:
    of = held("strided")
    check_forward(of, tensors(of.pattern, 50), scale=scale)


def test_every_layer_has_its_own_shards() -> None:
    text = HEAD + "layers: 3\ndense_layers: 1\nshards: [{heads: all, local: 1, stride: 4, offset: h + l}]"
    of = held(text)
    for layer in range(3):
        check_forward(of, tensors(of.pattern, 60), layer=layer)


@pytest.mark.parametrize("heads", [range(2, 4), range(1, 4)])
def test_some_of_the_heads(heads: range) -> None:
    of = held("several")
    check_forward(of, tensors(of.pattern, 20, 100, heads=heads), head_offset=heads.start)


@pytest.mark.parametrize("name", quick(["strided", "tokens", "mixed", "both_ways_drawn"], "tokens", "mixed"))
def test_parts_of_the_keys_are_combined(name: str) -> None:
    """Some parts are empty for some queries, one is for all of them, and one ends within a block."""
    of = held(name)
    q, k, v = tensors(of.pattern, 50, 140)
    parts = []
    for first, stop in itertools.pairwise([0, 16, 16, 112, 140]):
        keys = placed(k[:, :, first:stop]), placed(v[:, :, first:stop])
        parts.append(of.package.attention(q, *keys, return_lse=True, q_start=90, kv_start=first))
        assert not parts[-1][0].isnan().any()
    assert (parts[1][1] == float("-inf")).all()
    out, lse = of.package.combine(*zip(*parts, strict=True))
    true, true_lse = reference.attention(of.pattern, q, k, v)
    check_out(out, true, true_lse)
    check_lse(lse, true_lse)


@pytest.mark.parametrize("name", ["strided", "mixed"])
@pytest.mark.parametrize("shape", [(0, 5, 5), (1, 0, 5), (1, 5, 0)])
def test_nothing_at_all(name: str, shape: tuple[int, int, int]) -> None:
    of, (batch, queries, keys) = held(name), shape
    q, k = torch.randn(batch, 2, queries, 16), torch.randn(batch, 1, keys, 16)
    out, lse = of.package.attention(q, k, k, return_lse=True)
    assert (out == 0).all()
    assert (lse == float("-inf")).all()


@pytest.mark.parametrize("name", ["mixed", "both_ways_drawn"])
@pytest.mark.parametrize("keys", [0, 20])
def test_queries_that_all_stand_before_the_first_key(name: str, keys: int) -> None:
    """What they read of a table is there, and says that they keep nothing where the pattern is causal."""
    of = held(name)
    arrays, requests = of.part("launch.arrays"), of.part("launch.requests").Requests(1, 5, keys, -40, 0)
    pattern, _, places = arrays.row_arrays((0,), requests.rows, requests.columns, torch.device("cpu"))
    ints = len(of.part("kernels.index_map").CLASS_INTS[0])
    for row in range(*requests.rows):
        at = dict(places)[0] + (max(row, 0) if of.pattern.causal else row) * (3 + ints)
        assert 0 <= at <= len(pattern.view(-1)) - 3 - ints
    q, k = torch.randn(1, 2, 5, 16, requires_grad=True), torch.randn(1, 1, keys, 16, requires_grad=True)
    out, lse = of.package.attention(q, k, k, q_start=-40, return_lse=True)
    if of.pattern.causal or not keys:
        assert (out == 0).all() and (lse == float("-inf")).all()
    grads = torch.autograd.grad((out * out).sum(), (q, k))
    assert all(bool(grad.isfinite().all()) for grad in grads)


def test_large_scores_do_not_overflow() -> None:
    """Scores of some ten thousand: softmax takes the largest alone. Errors of the scores, 1e-7 each, are as large as
    the scores are, so only what is finite and right to 1 % is asked for."""
    of = held("tokens")
    q, k, v = tensors(of.pattern, 60)
    out, lse = of.package.attention(q * 100, k * 100, v, return_lse=True)
    true, true_lse = reference.attention(of.pattern, q * 100, k * 100, v)
    assert (out - true).norm() < 0.01 * true.norm()
    assert (lse - true_lse).norm() < 1e-6 * true_lse.norm()


def _drawn(text: str, queries: int, keys: int, plan: str | None) -> None:
    of = made.__wrapped__(text if "promises" in text else f"{text}promises: {{}}\n", plan)
    check_forward(of, tensors(of.pattern, queries, keys))


DRAWN = {
    "text": patterns(most_layers=1, most_heads=3),
    "queries": st.integers(1, 90),
    "keys": st.integers(1, 110),
    "plan": st.sampled_from([None, "table"]),
}
QUIET = {"suppress_health_check": list(HealthCheck), "deadline": None}


@settings(max_examples=6, derandomize=True, phases=[Phase.generate], **QUIET)
@given(**DRAWN)
def test_drawn_patterns(text: str, queries: int, keys: int, plan: str | None) -> None:
    _drawn(text, queries, keys, plan)


@pytest.mark.slow
@settings(max_examples=300, **QUIET)
@given(**DRAWN)
def test_many_drawn_patterns(text: str, queries: int, keys: int, plan: str | None) -> None:
    _drawn(text, queries, keys, plan)
