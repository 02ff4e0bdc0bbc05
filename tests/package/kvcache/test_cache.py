"""The compact cache: decoding from it is attention over all keys, and it holds what the definition still needs."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from patterncc import reference
from patterncc.analysis.costs.forecast import forecast
from patterncc.analysis.costs.live import live_tokens
from patterncc.language.model import Pattern
from patterncc.passes import lower
from tests.package.made import HEAD, PATTERNS, TOLERANCE, compiled, off, tensors

FP32 = TOLERANCE[torch.float32]
MONOTONE = {  # a column once dropped is never taken up again
    "strided": PATTERNS["strided"],  # the offset differs inside a KV group
    "by_group": HEAD + "shards: [{heads: all, local: 2, stride: 4, offset: g}]",
    "tokens": PATTERNS["tokens"],
    "window": PATTERNS["window"],
    "window_of_1": HEAD + "shards: [{heads: all, local: 1 tokens}]",
    "some_dense": PATTERNS["some_dense"],
    "one_kv_head": PATTERNS["one_kv_head"],
    "dense": HEAD + "shards: [{heads: all, dense: true}]",
    "chunks": PATTERNS["chunks"],
    "values": HEAD + "v_head_dim: 40\nshards: [{heads: all, local: 21 tokens, stride: 4, offset: g}]",
    "in_rows": HEAD + "shards: [{heads: all, local: 1, strides: [{every: 3, to: 4}], globals: {columns: [2]}}]",
    "uneven": HEAD + "shards: [{heads: 0-1, local: 1}, {heads: 2, local: 9}, {heads: 3, local: 40 tokens, sink: 1}]",
}


def serve(cache: object, inputs: tuple[Tensor, ...], cuts: list[int]) -> Tensor:
    """The outputs of steps of so many tokens."""
    parts = zip(*(x.split(cuts, dim=2) for x in inputs), strict=True)
    return torch.cat([cache.step(*part) for part in parts], 2)  # type: ignore[attr-defined]


def live(pattern: Pattern, length: int) -> int:
    """By the definition: keys u < length that a query t >= length - 1 of the KV head's heads may attend, all KV heads
    together. Rows are looked at as far as any bound or period of these patterns reaches: 64 blocks more."""
    t, u = np.arange(length - 1, length + 64 * pattern.block, 1), np.arange(length)
    seen = [reference.keeps(pattern, 0, head, t, u).any(0) for head in range(pattern.heads)]
    groups = np.array(seen).reshape(pattern.kv_heads, pattern.group, -1)
    return int(groups.any(1).sum())


@pytest.mark.parametrize("name", MONOTONE)
def test_decoding_and_its_bytes_at_every_step(name: str, poisoned: None) -> None:
    """Token by token: the outputs of attention over all keys; the bytes that analysis and forecast say, and (at some
    lengths) the definition; memory within its bound. Outputs are those of other sums in fp32: 2e-6 by norm."""
    pattern, package = compiled(MONOTONE[name])
    classes = lower(pattern)
    q, k, v = tensors(pattern, 147)
    cache = package.KVCache(1)
    assert cache.length == 0 and cache.bytes == 0
    token = 4 * (pattern.head_dim + pattern.v_head_dim)  # K and V in fp32
    outs, peak = [], 0
    for n in range(147):
        outs.append(cache.step(*(x[:, :, n : n + 1] for x in (q, k, v))))
        length = n + 1
        assert cache.length == length
        kept = sum(live_tokens(classes, 0, g, length) for g in range(pattern.kv_heads))
        assert cache.bytes == kept * token
        if length % 23 == 0 or length in (1, 16, 17):
            assert kept == live(pattern, length)
            assert cache.bytes == forecast(classes, length, "fp32").model["kv_bytes_kept"]
        peak = max(peak, cache.bytes)
        assert peak <= cache.allocated_bytes <= 1.25 * peak + pattern.kv_heads * pattern.block * token
    true, _ = reference.attention(pattern, q, k, v)
    assert off(torch.cat(outs, 2), true) <= FP32


@pytest.mark.parametrize("cuts", [[150], [70, 1, 1, 1, 77], [16] * 9 + [6]], ids=len)
@pytest.mark.parametrize("name", MONOTONE)
def test_prefill_in_chunks(name: str, cuts: list[int], poisoned: None) -> None:
    """However the tokens come: full attention, and the same bytes in the end. Two sequences at once."""
    pattern, package = compiled(MONOTONE[name])
    inputs = tensors(pattern, 150, batch=2)
    cache = package.KVCache(2, max_length=150)
    assert off(serve(cache, inputs, cuts), reference.attention(pattern, *inputs)[0]) <= FP32
    assert cache.length == 150
    assert cache.bytes == 2 * live(pattern, 150) * 4 * (pattern.head_dim + pattern.v_head_dim)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype, poisoned: None) -> None:
    pattern, package = compiled("tokens")
    inputs = tensors(pattern, 90, dtype=dtype)
    cache = package.KVCache(1, dtype=dtype)
    out = serve(cache, inputs, [64, *[1] * 26])
    assert out.dtype == dtype
    assert off(out, reference.attention(pattern, *inputs)[0]) <= TOLERANCE[dtype]
    assert cache.bytes == live(pattern, 90) * 2 * dtype.itemsize * pattern.head_dim


@pytest.mark.parametrize("name", ["strided", "tokens"])
def test_scale_and_heads_of_a_rank(name: str, poisoned: None) -> None:
    pattern, package = compiled(name)
    q, k, v = tensors(pattern, 90)
    true = reference.attention(pattern, q, k, v, scale=0.5)[0]
    for first, kv_first in ((2, 1), (1, 0)):  # a rank's groups may have unequally many heads
        cache = package.KVCache(1, head_offset=first, heads=4 - first)
        inputs = q[:, first:], k[:, kv_first:], v[:, kv_first:]
        steps = zip(*(x.split([60, 3, *[1] * 27], 2) for x in inputs), strict=True)
        out = torch.cat([cache.step(*step, scale=0.5) for step in steps], 2)
        assert off(out, true[:, first:]) <= FP32


@pytest.mark.parametrize("name", MONOTONE)
def test_every_key_counts_exactly_once(name: str, poisoned: None) -> None:
    """With q = 0 all weights are equal, and whole numbers sum without rounding in any order: output times the number of
    kept keys is their sum, to the unit, in fp64. A key too many, too few or at another's place shows."""
    pattern, package = compiled(MONOTONE[name])
    q, k, v = tensors(pattern, 130, dtype=torch.float64)
    v = (v * 1000).round()
    kept = reference.dense_mask(pattern, 0, 130)
    sums = kept.double() @ v.repeat_interleave(pattern.group, 1)[0]
    out = serve(package.KVCache(1, dtype=torch.float64), (q * 0, k, v), [3, 65, *[1] * 62])
    assert (out[0] * kept.sum(-1, keepdim=True) - sums).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["one_kv_head", "in_rows"])
def test_numbers_that_do_not_lie_side_by_side(name: str, poisoned: None) -> None:
    """Every second number of a row; and rows side by side, each number a row apart."""
    pattern, package = compiled(MONOTONE[name])
    inputs = tensors(pattern, 60)
    true, _ = reference.attention(pattern, *inputs)
    apart = tuple(torch.stack([x, torch.full_like(x, float("nan"))], -1).flatten(-2)[..., ::2] for x in inputs)
    assert all(x.stride(-1) == 2 for x in apart)
    assert off(serve(package.KVCache(1), apart, [50, 3, *[1] * 7]), true) <= FP32
    cache, parts = package.KVCache(1), zip(*(x.split([50, 3, 5, 1, 1], 2) for x in inputs), strict=True)
    outs = [cache.step(*(x.mT.contiguous().mT for x in part)) for part in parts]
    assert off(torch.cat(outs, 2), true) <= FP32


def test_where_the_order_of_sums_is_equal_so_are_the_bits(poisoned: None) -> None:
    """A forked cache has the places of its origin, a batch the places of each of its sequences alone."""
    pattern, package = compiled("strided")
    inputs = tensors(pattern, 150, batch=3)
    cache = package.KVCache(3)
    serve(cache, tuple(x[:, :, :100] for x in inputs), [64, *[1] * 36])
    fork, rest = cache.fork(torch.arange(3)), tuple(x[:, :, 100:] for x in inputs)
    out = serve(cache, rest, [1] * 50)
    assert torch.equal(out, serve(fork, rest, [1] * 50))
    alone = package.KVCache(1)
    whole = serve(alone, tuple(x[1:2] for x in inputs), [64, *[1] * 86])
    assert torch.equal(whole[:, :, 100:], out[1:2])


def test_fork_is_beam_search(poisoned: None) -> None:
    """Entries are copied, repeated and dropped; what then differs does not mix, and the old cache goes on as before."""
    pattern, package = compiled("strided")
    q, k, v = tensors(pattern, 140, batch=3)
    first = [x[:, :, :100] for x in (q, k, v)]
    cache, alone = package.KVCache(3), package.KVCache(3)
    serve(cache, tuple(first), [100])
    serve(alone, tuple(first), [100])
    index = torch.tensor([2, 0, 2, 2])
    fork = cache.fork(index)
    assert fork.length == 100 and fork.bytes * 3 == cache.bytes * 4
    torch.manual_seed(8)
    rest = tuple(torch.randn(4, n, 40, pattern.head_dim) for n in (4, 2, 2))
    forked = serve(fork, rest, [1] * 40)
    whole = tuple(torch.cat([x[index], y], 2) for x, y in zip(first, rest, strict=True))
    assert off(forked, reference.attention(pattern, *whole)[0][:, :, 100:]) <= FP32
    rest = tuple(x[:, :, 100:] for x in (q, k, v))
    assert torch.equal(serve(cache, rest, [1] * 40), serve(alone, rest, [1] * 40))
    assert cache.length == fork.length == 140


def test_max_length_is_a_promise_and_a_limit(poisoned: None) -> None:
    """Memory is taken at once and never more; one token too many is refused, and changes nothing."""
    pattern, package = compiled("strided")
    q, k, v = tensors(pattern, 130)
    cache = package.KVCache(1, max_length=129)
    allocated = cache.allocated_bytes
    assert allocated > 0
    serve(cache, tuple(x[:, :, :129] for x in (q, k, v)), [100, *[1] * 29])
    assert cache.allocated_bytes == allocated
    with pytest.raises(ValueError, match="129 tokens are cached and 1 come: more than max_length=129"):
        cache.step(*(x[:, :, 129:] for x in (q, k, v)))
    assert cache.length == 129


def test_a_window_costs_its_own_length(poisoned: None) -> None:
    pattern, package = compiled("window")
    cache = package.KVCache(1)
    serve(cache, tensors(pattern, 1000), [1000])
    assert cache.bytes == 37 * 2 * 2 * 4 * 16
    assert cache.allocated_bytes < 4 * cache.bytes  # in chunks of 64 the peak is 37 + 64, and a quarter of it


def test_a_key_dropped_too_early_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: lifetimes a token too short spoil the outputs of a window."""
    pattern, package = compiled("window")
    lifetimes = importlib.import_module(f"{package.__name__}.rules.lifetime").Lifetimes
    true_of = lifetimes.of
    monkeypatch.setattr(lifetimes, "of", lambda self, tokens, end: true_of(self, tokens, end) - 1)
    inputs = tensors(pattern, 90)
    assert off(serve(package.KVCache(1), inputs, [1] * 90), reference.attention(pattern, *inputs)[0]) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["strided", "tokens"])
def test_two_thousand_tokens(name: str) -> None:
    """Every step's bytes are the forecast's, and its output that of the full cache."""
    pattern, package = compiled(MONOTONE[name])
    classes, cache = lower(pattern), package.KVCache(1, max_length=2000)
    q, k, v = tensors(pattern, 2000)
    outs = []
    for n in range(2000):
        outs.append(cache.step(*(x[:, :, n : n + 1] for x in (q, k, v))))
        assert cache.bytes == forecast(classes, n + 1, "fp32").model["kv_bytes_kept"]
    out = torch.cat(outs, 2)
    assert off(out, reference.attention(pattern, q, k, v)[0]) <= FP32
    assert off(out, full_cache(package, q, k, v)) <= FP32


def full_cache(package: ModuleType, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Decoding token by token from all keys, in pages of 16."""
    pages = [x[0].transpose(0, 1).unflatten(0, (-1, 16)) for x in (k, v)]
    table = torch.arange(len(pages[0]), dtype=torch.int32)[None]
    outs = []
    for n in range(q.shape[2]):
        out = package.decode(q[:, :, n : n + 1].transpose(1, 2), *pages, table, torch.tensor([n + 1]).int())
        outs.append(out.transpose(1, 2))
    return torch.cat(outs, 2).double()
