"""Attention of generated packages on the CPU, forward and backward, against dense attention in fp64."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from patterncc.language.model import Pattern
from tests.package.made import (
    CAUSAL,
    PATTERNS,
    TOLERANCE,
    cancelling,
    check,
    compiled,
    exact,
    off,
    run,
    tensors,
    weights_like,
)
from tests.strategies import patterns

pytestmark = pytest.mark.usefixtures("cpu_path")
LENGTHS = [(1, 1), (15, 15), (150, 150), (33, 150), (1, 131), (150, 33), (17, 1)]  # queries, keys


def compare(pattern: Pattern, package: ModuleType, inputs: tuple[Tensor, ...], **options: object) -> None:
    """Output, LSE and all gradients, through the output and the LSE."""
    weights = weights_like(inputs)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return package.attention(q, k, v, return_lse=True, **options)

    found = run(attend, inputs, weights)
    assert {found[name].dtype for name in ("out", "dq", "dk", "dv")} == {inputs[0].dtype}
    true = exact(pattern, inputs, weights, **options)  # type: ignore[arg-type]
    check(found, true, TOLERANCE[inputs[0].dtype], cancelling(inputs, weights, true, options.get("scale")))  # type: ignore[arg-type]


@pytest.mark.parametrize(("queries", "keys"), LENGTHS)
@pytest.mark.parametrize("name", PATTERNS)
def test_it_is_dense_attention_under_the_mask(name: str, queries: int, keys: int, poisoned: None) -> None:
    """Bottom-right aligned: the last query stands where the last key stands, whatever their numbers."""
    pattern, package = compiled(name)
    compare(pattern, package, tensors(pattern, queries, keys))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["strided", "tokens", "starved", "both_ways", "drawn"])
def test_every_dtype(name: str, dtype: torch.dtype, poisoned: None) -> None:
    pattern, package = compiled(name)
    compare(pattern, package, tensors(pattern, 141, 150, batch=2, dtype=dtype))


@pytest.mark.parametrize("name", ["strided", "both_ways", "two_layers", "some_dense"])
def test_longer_than_a_tile(name: str, poisoned: None) -> None:
    """1100 tokens: several tiles of every size that the CPU path cuts."""
    pattern, package = compiled(name)
    compare(pattern, package, tensors(pattern, 1100))


def test_every_layer_has_its_own_shards(poisoned: None) -> None:
    pattern, package = compiled("two_layers")
    for layer in (0, 1):
        compare(pattern, package, tensors(pattern, 150), layer=layer)


@pytest.mark.parametrize("scale", [0.0, 1.0, -0.3])
def test_scale(scale: float, poisoned: None) -> None:
    pattern, package = compiled("strided")
    compare(pattern, package, tensors(pattern, 71), scale=scale)


@pytest.mark.parametrize("form", ["transposed", "qkv in one", "repeated batch", "backwards", "last not contiguous"])
def test_any_strides(form: str, poisoned: None) -> None:
    """Views of what models hold: the result is that of contiguous copies, bit for bit."""
    pattern, package = compiled("strided")
    dim, heads = pattern.head_dim, (pattern.heads, pattern.kv_heads, pattern.kv_heads)
    torch.manual_seed(0)
    if form == "transposed":  # [batch, tokens, heads, dim], as projections give it
        views = [torch.randn(2, 70, n, dim).transpose(1, 2) for n in heads]
    elif form == "qkv in one":
        views = [x.transpose(1, 2) for x in torch.randn(2, 70, sum(heads), dim).split(heads, dim=2)]
    elif form == "repeated batch":  # stride 0
        views = [torch.randn(1, n, 70, dim).expand(2, -1, -1, -1) for n in heads]
    elif form == "backwards":
        views = [torch.randn(2, n, 140, dim + 3)[:, :, 1::2, 2 : dim + 2] for n in heads]
    else:
        views = [torch.randn(2, n, dim, 70).transpose(2, 3) for n in heads]
    dense = [x.contiguous() for x in views]
    weights = torch.randn(2, 70, pattern.heads, dim).transpose(1, 2), torch.randn(2, pattern.heads, 70)
    attend = lambda q, k, v: package.attention(q, k, v, return_lse=True)  # noqa: E731
    here, there = run(attend, views, weights), run(attend, dense, (weights[0].contiguous(), weights[1]))
    for name, x in here.items():
        assert torch.equal(x, there[name]), name
    check(here, exact(pattern, dense, weights), TOLERANCE[torch.float32])


def test_gradients_of_one_thing_only(poisoned: None) -> None:
    """Only the output, or only the LSE, is differentiated; or only one of q, k and v asks for it."""
    pattern, package = compiled("tokens")
    inputs = tensors(pattern, 75)
    dout, dlse = weights_like(inputs)
    attend = lambda q, k, v: package.attention(q, k, v, return_lse=True)  # noqa: E731
    check(run(attend, inputs, (dout, None)), exact(pattern, inputs, (dout, None)), TOLERANCE[torch.float32])
    true = exact(pattern, inputs, (torch.zeros_like(dout), dlse))
    q, k, v = (x.clone().requires_grad_() for x in inputs)
    _, lse = attend(q, k, v)
    lse.backward(dlse)
    found = {"dq": q.grad, "dk": k.grad, "dv": v.grad}
    for name, x in found.items():
        assert x is None or off(x, true[name]) <= TOLERANCE[torch.float32], name
    for chosen in range(3):
        mixed = [x.clone().requires_grad_(n == chosen) for n, x in enumerate(inputs)]
        out, _ = attend(*mixed)
        out.backward(dout)
        assert [x.grad is not None for x in mixed] == [n == chosen for n in range(3)]


@pytest.mark.parametrize("name", ["starved", "masked"])
def test_rows_that_keep_nothing(name: str, poisoned: None) -> None:
    """0 and -inf, and gradients of 0; and there are such rows."""
    pattern, package = compiled(name)
    q, k, v = (x.requires_grad_() for x in tensors(pattern, 190))
    out, lse = package.attention(q, k, v, return_lse=True)
    empty = lse == float("-inf")
    assert empty.any() and not empty.all()
    assert (out[empty] == 0).all()
    dout, dlse = weights_like((q, k, v))
    torch.autograd.backward((out, lse), (dout, dlse))
    assert q.grad is not None and (q.grad[empty] == 0).all()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (q, k, v))


@pytest.mark.parametrize("q_start", [None, 0])
@pytest.mark.parametrize("shape", [(0, 5, 5), (1, 0, 9), (1, 9, 0), (2, 0, 0), (1, 70, 0)], ids=str)
@pytest.mark.parametrize("name", ["strided", "both_ways", "drawn"])
def test_nothing_at_all(name: str, shape: tuple[int, int, int], q_start: int | None, poisoned: None) -> None:
    """No batch, no queries, no keys: still the right shapes, 0 and -inf, and gradients."""
    batch, queries, keys = shape
    pattern, package = compiled(name)
    q, k, v = (x.requires_grad_() for x in tensors(pattern, queries, keys, batch=batch))
    out, lse = package.attention(q, k, v, return_lse=True, q_start=q_start)
    assert out.shape == q.shape and lse.shape == q.shape[:3]
    assert (out == 0).all() and (lse == float("-inf")).all()
    out.sum().backward()
    assert all(x.grad is not None and (x.grad == 0).all() for x in (q, k, v))


@pytest.mark.parametrize("name", ["strided", "tokens", "ranges", "some_dense"])
def test_closed_form_and_forced_table_give_equal_bits(name: str, poisoned: None) -> None:
    pattern, closed = compiled(name)
    _, table = compiled(name, "table")
    assert closed.__name__ != table.__name__
    inputs = tensors(pattern, 150)
    weights = weights_like(inputs)
    one, other = (
        run(lambda q, k, v, package=package: package.attention(q, k, v, return_lse=True), inputs, weights)
        for package in (closed, table)
    )
    for key, x in one.items():
        assert torch.equal(x, other[key]), key


@pytest.mark.parametrize("name", CAUSAL)
def test_what_comes_later_is_never_read(name: str, poisoned: None) -> None:
    """Other keys after a query change no bit of its output; those of the queries that see them, they do."""
    pattern, package = compiled(name)
    q, k, v = tensors(pattern, 100)
    clean = package.attention(q, k, v)
    k[:, :, 70:] *= -1e3
    v[:, :, 70:] *= 1e6
    other = package.attention(q, k, v)
    assert torch.equal(other[:, :, :70], clean[:, :, :70])
    assert not torch.equal(other[:, :, 70:], clean[:, :, 70:]), "negative control"


def test_large_scores_do_not_overflow(poisoned: None) -> None:
    """Scores of ±10^4, where exp alone is 0 or infinite: softmax picks the largest."""
    pattern, package = compiled("strided")
    q, k, v = tensors(pattern, 90)
    inputs = (q * 100, k * 100, v)
    weights = weights_like(inputs)
    found = run(lambda q, k, v: package.attention(q, k, v, return_lse=True), inputs, weights)
    true = exact(pattern, inputs, weights)
    assert all(x.isfinite().all() for x in found.values())
    assert off(found["lse"], true["lse"]) <= TOLERANCE[torch.float32]
    # scores of 10^4 carry an absolute error of 10^4 * 6e-8 * sqrt(dim): weights, and so outputs, are off by 5e-3
    assert off(found["out"], true["out"]) <= 5e-3


def drawn(text: str) -> tuple[Pattern, ModuleType]:
    document = yaml.safe_load(text)
    return compiled(yaml.safe_dump({**document, "promises": {}}, sort_keys=False))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=patterns(sizes=True), queries=st.integers(1, 90), keys=st.integers(1, 130), data=st.data())
def test_drawn_patterns(text: str, queries: int, keys: int, data: st.DataObject, poisoned: None) -> None:
    """The whole language but masks, whatever it says: forward and backward, at any lengths."""
    pattern, package = drawn(text)
    layer = data.draw(st.integers(0, pattern.layers - 1))
    compare(pattern, package, tensors(pattern, queries, keys, layer=layer), layer=layer)


@pytest.mark.slow
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=patterns(sizes=True), queries=st.integers(1, 300), keys=st.integers(1, 400), data=st.data())
def test_many_drawn_patterns(text: str, queries: int, keys: int, data: st.DataObject, poisoned: None) -> None:
    test_drawn_patterns.hypothesis.inner_test(text, queries, keys, data, None)  # type: ignore[attr-defined]
