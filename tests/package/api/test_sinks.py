"""Learned sinks and soft-capped scores, against dense attention in fp64 with one more key of value 0 a head."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.package.made import HEAD, TOLERANCE, compiled, off, tensors

FP32 = TOLERANCE[torch.float32]
SUNK = HEAD + "sinks: learned\nshards: [{heads: 0-1, local: 21 tokens}, {heads: rest, chunk: 2, stride: 4}]"
STARVED = HEAD + "sinks: learned\nshards: [{heads: all, strides: [{every: 4, offset: 2}]}]"  # rows without keys
SINKS = torch.tensor([0.7, -1.3, 2.1, float("-inf")])


def graded(attend, inputs: tuple[Tensor, ...]) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """Output, LSE, and the gradients of all inputs when both weigh something."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out, lse = attend(*leaves)
    torch.manual_seed(3)
    weights = torch.randn(out.shape).to(out.dtype), torch.randn(lse.shape).to(lse.dtype)
    is_finite = lse.isfinite()
    torch.autograd.backward([out, lse[is_finite]], [weights[0], weights[1][is_finite]])
    return [out.detach(), lse.detach(), *(x.grad for x in leaves)]


@pytest.mark.parametrize("text", [SUNK, STARVED, SUNK.replace("sinks: learned", "softcap: 2.5")])
def test_attention_and_its_gradients(text: str) -> None:
    pattern, package = compiled(text)
    inputs = *tensors(pattern, 83, 101, batch=2), SINKS
    found = graded(lambda q, k, v, s: package.attention(q, k, v, sinks=s, return_lse=True), inputs)
    true = graded(lambda q, k, v, s: reference.attention(pattern, q, k, v, sinks=s), tuple(x.double() for x in inputs))
    names = ("out", "lse", "dq", "dk", "dv", "dsinks")
    assert {name: off(x, y) for name, x, y in zip(names, found, true, strict=True) if off(x, y) > 2 * FP32} == {}
    without = reference.attention(pattern, *(x.double() for x in inputs[:3]))[0]
    assert off(found[0], without) > 0.05  # negative control: the sinks matter


def test_no_keys_at_all(path: str) -> None:
    """The sinks alone are then in the sums, and have a gradient through the LSE."""
    pattern, package = compiled(SUNK)
    inputs = *(torch.randn(2, heads, rows, 16) for heads, rows in ((4, 5), (2, 0), (2, 0))), SINKS
    found = graded(lambda q, k, v, s: package.attention(q, k, v, sinks=s, return_lse=True), inputs)
    true = graded(lambda q, k, v, s: reference.attention(pattern, q, k, v, sinks=s), tuple(x.double() for x in inputs))
    assert not found[0].any() and found[1][:, 0].eq(SINKS[0]).all()
    assert max(off(x, y) for x, y in zip(found, true, strict=True)) <= FP32
    assert found[-1].abs().max() > 0.05


def test_packed_sequences_and_rows_of_none() -> None:
    """Three sequences, one of them empty, and rows before and after all of them, which have no softmax."""
    pattern, package = compiled(STARVED)
    starts = torch.tensor([2, 39, 39, 90], dtype=torch.int32)
    q, k, v = (x[0].transpose(0, 1).contiguous() for x in tensors(pattern, 95))
    longest = 51, 51

    def attend(q: Tensor, k: Tensor, v: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return package.attention_varlen(q, k, v, starts, starts, *longest, sinks=s, return_lse=True)

    def exact(q: Tensor, k: Tensor, v: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        out, lse = torch.zeros_like(q), q.new_full((q.shape[1], len(q)), float("-inf"))
        for first, stop in pairwise(starts.tolist()):
            if first < stop:
                part = (x[first:stop].transpose(0, 1)[None] for x in (q, k, v))
                own_out, own_lse = reference.attention(pattern, *part, sinks=s)
                out = torch.cat([out[:first], own_out[0].transpose(0, 1), out[stop:]])
                lse = torch.cat([lse[:, :first], own_lse[0], lse[:, stop:]], 1)
        return out, lse

    found = graded(attend, (q, k, v, SINKS))
    true = graded(exact, tuple(x.double() for x in (q, k, v, SINKS)))
    assert max(off(x, y) for x, y in zip(found, true, strict=True)) <= 2 * FP32
    assert (found[1][:, :2] == float("-inf")).all()
    assert (found[1][:, 90:] == float("-inf")).all()


def test_rows_of_no_sequence_may_be_anything() -> None:
    """Whatever the gradients of output and LSE are there, and whatever the sinks are."""
    pattern, package = compiled(STARVED)
    starts = torch.tensor([2, 39, 39, 90], dtype=torch.int32)
    leaves = [x[0].transpose(0, 1).contiguous().requires_grad_() for x in tensors(pattern, 95)]
    sinks = SINKS.clone().requires_grad_()

    def attend(sinks: Tensor) -> tuple[Tensor, Tensor]:
        return package.attention_varlen(*leaves, starts, starts, 51, 51, sinks=sinks, return_lse=True)

    out, lse = results = attend(sinks)
    clean = [torch.randn(x.shape) for x in results]
    spoilt = [x.clone() for x in clean]
    for own in (slice(0, 2), slice(90, 95)):
        spoilt[0][own], spoilt[1][:, own] = float("nan"), float("nan")
    graded = [torch.autograd.grad(results, (*leaves, sinks), x, retain_graph=True) for x in (clean, spoilt)]
    assert all(torch.equal(x, y) and x.isfinite().all() for x, y in zip(*graded, strict=True))
    out, lse = attend(torch.full_like(sinks, float("nan")))
    assert (out[:2] == 0).all() and (out[90:] == 0).all() and lse[:, [0, 1, 90, 94]].isneginf().all()
    assert lse[:, 2:90].isnan().all()  # negative control


def test_pages_and_decoding() -> None:
    pattern, package = compiled(SUNK)
    q, k, v = tensors(pattern, 7, 101)
    true, true_lse = reference.attention(pattern, q.double(), k.double(), v.double(), sinks=SINKS.double())
    page = 32
    caches = [torch.full((5, page, pattern.kv_heads, pattern.head_dim), float("nan")) for _ in range(2)]
    table = torch.tensor([[3, 0, 4, 1]], dtype=torch.int32)
    for cache, x in zip(caches, (k, v), strict=True):
        for u in range(101):
            cache[table[0, u // page], u % page] = x[0, :, u]
    lengths = torch.tensor([101], dtype=torch.int32)
    tokens = q[0].transpose(0, 1).contiguous()
    of_decode = package.decode(tokens[None], *caches, table, lengths, sinks=SINKS, return_lse=True)
    assert off(of_decode[0].transpose(1, 2), true) <= FP32
    assert off(of_decode[1], true_lse) <= FP32
    starts = torch.tensor([0, 7], dtype=torch.int32)
    more = torch.cat([tokens, tokens[:1]])  # the last row is of no request
    out, lse = package.attention_paged(more, *caches, table, lengths, starts, sinks=SINKS, return_lse=True)
    assert off(out[:7].transpose(0, 1)[None], true) <= FP32
    assert (lse[:, 7] == float("-inf")).all() and (out[7] == 0).all()


@pytest.mark.parametrize("cuts", [[90], [50, 40], [50, 20, 1, 1, 18]])
def test_the_cache(cuts: list[int]) -> None:
    pattern, package = compiled(SUNK.replace("sinks", "softcap: 3.0\nsinks"))
    inputs = tensors(pattern, sum(cuts), batch=2)
    true, _ = reference.attention(pattern, *(x.double() for x in inputs), sinks=SINKS.double())
    cache = package.KVCache(2)
    parts = zip(*(x.split(cuts, dim=2) for x in inputs), strict=True)
    assert off(torch.cat([cache.step(*part, sinks=SINKS) for part in parts], 2), true) <= FP32


def test_parts_of_the_keys_combine_when_one_has_the_sinks() -> None:
    pattern, package = compiled(SUNK)
    q, k, v = tensors(pattern, 40, 128)
    none = torch.full_like(SINKS, float("-inf"))
    place = {"q_start": 88, "return_lse": True}
    parts = [
        package.attention(q, k[:, :, :64], v[:, :, :64], kv_start=0, sinks=none, **place),
        package.attention(q, k[:, :, 64:], v[:, :, 64:], kv_start=64, sinks=SINKS, **place),
    ]
    out, lse = package.combine(*zip(*parts, strict=True))
    true = reference.attention(pattern, *(x.double() for x in (q, k, v)), sinks=SINKS.double())
    assert off(out, true[0]) <= FP32
    assert off(lse, true[1]) <= FP32


def test_large_scores_come_to_the_cap() -> None:
    """Scores of some hundreds, and of nearly nothing: where tanh is flat, and where it is a line."""
    pattern, package = compiled(HEAD + "softcap: 50.0\nshards: [{heads: all, local: 3}]")
    for size in (1e-3, 1.0, 20.0):
        q, k, v = tensors(pattern, 70)
        inputs = q * size, k * size, v
        out, lse = package.attention(*inputs, return_lse=True)
        true = reference.attention(pattern, *(x.double() for x in inputs))
        assert off(out, true[0]) <= 20 * FP32  # a score of 50 in float32 is off by 4e-6, and so is its weight
        assert off(lse, true[1]) <= FP32


def test_mistakes_say_what_is_wanted() -> None:
    pattern, package = compiled(SUNK)
    q, k, v = tensors(pattern, 20)
    assert package.PATTERN["sinks"] == "learned"
    with pytest.raises(TypeError, match=r"small says `sinks: learned`: pass sinks=, a tensor \[4\]"):
        package.attention(q, k, v)
    with pytest.raises(TypeError, match=r"sinks: learned"):
        package.KVCache(1).step(q, k, v)
    with pytest.raises(ValueError, match=r"sinks is a tensor \[4\]"):
        package.attention(q, k, v, sinks=torch.zeros(2))
    with pytest.raises(TypeError, match="floating-point"):
        package.attention(q, k, v, sinks=torch.zeros(4, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"sinks is a torch\.Tensor"):
        package.attention(q, k, v, sinks=[0.0] * 4)
