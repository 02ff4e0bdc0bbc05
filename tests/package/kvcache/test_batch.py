"""The compact cache of a batch whose entries have different lengths, come, go and are forked, and its memory."""

from __future__ import annotations

import importlib
import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patterncc.analysis.costs.forecast import forecast
from patterncc.analysis.costs.live import live_tokens
from patterncc.passes import lower
from tests.harness import made
from tests.package.kvcache.kvbatch import ENDS, WHOLE, Batch, ends
from tests.package.kvcache.test_cache import MONOTONE
from tests.package.made import HEAD, compiled, made_mask


@pytest.mark.parametrize("most", [None, 300])
@pytest.mark.parametrize("name", [*MONOTONE, "ends", "whole"])
def test_entries_of_different_lengths(name: str, most: int | None, poisoned: None) -> None:
    """Prompts of 0, 20 and 90 tokens; decoding, some entries standing still; a few tokens at once, of which an entry
    takes some; a second prompt; forks in between, with entries that are new."""
    made_mask("ends.npy", ends())
    pattern, package = compiled({"ends": ENDS, "whole": WHOLE}.get(name) or MONOTONE[name])
    batch = Batch(pattern, package, 3, max_length=most)
    torch.manual_seed(3)
    chance = random.Random(4)
    batch.step(90, [0, 20, 90])
    batch.step(1, [0, 1, 0])
    for n in (1, 1, 4, 1, 2, 5, 3, 1):
        batch.step(n, [chance.randint(0, n) for _ in range(3)])
    batch.step(0, None)
    batch.step(2, [0, 0, 0])
    batch.step(70, [70, 11, 66])
    batch.fork([2, 0, -1, 2])
    for n in (1, 30, 1, 1, 5, 1):
        batch.step(n, [chance.randint(0, n) for _ in range(4)])
        batch.step(1, None)
    batch.fork([3, 1])
    batch.step(37, [37, 36])
    for _ in range(40):
        batch.step(1, None)
    batch.fork([])
    assert batch.cache.length == batch.cache.bytes == batch.cache.allocated_bytes == 0
    batch.step(1, [])
    batch.check_outputs()


@st.composite
def monotone_patterns(draw: st.DrawFn) -> tuple[str, np.ndarray]:
    """Texts of patterns that are KV-monotone, and the mask for some: every column is kept from its own row up to one
    that is drawn, or not at all."""
    i, columns = np.arange(20)[:, None], np.arange(20)
    last = np.array(draw(st.lists(st.lists(st.integers(-1, 19), min_size=20, max_size=20), min_size=4, max_size=4)))
    mask = (i >= columns) & (i <= last[:, None, :])
    shards = []
    for head in range(4):
        part = [
            draw(st.sampled_from(["local: 1", "local: 3", "local: 1 tokens", "local: 50 tokens", "mask: ends.npy"]))
        ]
        if draw(st.booleans()):
            every = draw(st.integers(2, 5))
            part.append(f"stride: {every}, offset: {draw(st.integers(0, every - 1))}")
        if "mask" not in part[0] and draw(st.booleans()):
            part.append("mask: ends.npy")
        if draw(st.booleans()):
            part.append("sink: 9 tokens")
        shards.append(f"{{heads: {head}, {', '.join(part)}}}")
    return HEAD + f"shards: [{', '.join(shards)}]", mask


STEPS = st.lists(
    st.tuples(st.sampled_from([0, 1, 1, 1, 2, 5, 17, 70]), st.lists(st.floats(0, 1), min_size=3, max_size=3)),
    min_size=4,
    max_size=14,
)


def follow(pattern: tuple[str, np.ndarray], steps: list[tuple[int, list[float]]], most: bool, fork: list[int]) -> None:
    made_mask("ends.npy", pattern[1])
    definition, package = made.__wrapped__(pattern[0])  # the text may be the same, the mask another
    batch = Batch(definition, package, 3, max_length=sum(n for n, _ in steps) or 1 if most else None)
    for at, (n, shares) in enumerate(steps):
        if at == len(steps) // 2:
            batch.fork(fork)
        batch.step(n, [round(n * share) for share in shares] if at % 3 else None)
    batch.check_outputs()


FORKS = st.lists(st.integers(-1, 2), min_size=3, max_size=3)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(monotone_patterns(), STEPS, st.booleans(), FORKS)
def test_random_patterns_and_steps(
    pattern: tuple[str, np.ndarray], steps: list[tuple[int, list[float]]], most: bool, fork: list[int]
) -> None:
    follow(pattern, steps, most, fork)


@pytest.mark.slow
@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow])
@given(monotone_patterns(), STEPS, st.booleans(), FORKS)
def test_many_random_patterns_and_steps(
    pattern: tuple[str, np.ndarray], steps: list[tuple[int, list[float]]], most: bool, fork: list[int]
) -> None:
    follow(pattern, steps, most, fork)


@pytest.mark.parametrize("most", [None, 384])
def test_heads_that_need_memory_at_different_times_share_it(most: int | None) -> None:
    """The first KV head has 192 live keys, then next to none; the second then as many. What one gives back the other
    gets; decoding goes on as if nothing had been."""
    made_mask("ends.npy", ends())
    pattern, package = compiled(WHOLE)
    batch = Batch(pattern, package, 2, max_length=most)
    first = batch.cache.allocated_bytes
    batch.step(150, None)
    for _ in range(117):
        batch.step(2, [2, 1])
    batch.check_outputs()
    peaks = [max(live_tokens(batch.classes, 0, g, n) for n in range(1, 384)) for g in range(2)]
    assert sum(peaks) > 1.7 * batch.peak(384)  # so both peaks at once would break the bound
    assert most is None or batch.cache.allocated_bytes == first


def test_the_bound_is_broken_if_nothing_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    made_mask("ends.npy", ends())
    pattern, package = compiled(WHOLE)
    room = importlib.import_module(f"{package.__name__}.kvcache.room").Room
    monkeypatch.setattr(room, "_bounded", lambda *_: True)
    batch = Batch(pattern, package, 1)
    with pytest.raises(AssertionError, match="allocated_bytes"):
        for _ in range(384):
            batch.step(1, None)


def test_a_batch_gives_the_bits_of_each_entry_alone(poisoned: None) -> None:
    """With q = 0 and whole numbers, where every order of sums has the same result, token by token. In fp64."""
    for name in ("strided", "tokens", "uneven"):
        _, package = compiled(MONOTONE[name])
        torch.manual_seed(6)
        shapes = ((4, 200), (2, 200), (2, 200))
        q, k, v = (torch.randn(3, *shape, 16, dtype=torch.float64) for shape in shapes)
        q, v = q * 0, (v * 1000).round()
        cache = package.KVCache(3, dtype=torch.float64)
        alone = [package.KVCache(1, dtype=torch.float64) for _ in range(3)]
        at = [0, 0, 0]
        for n in range(200):
            counts = [1, int(n % 2 == 0), int(n > 150)]
            here = [torch.stack([x[e, :, at[e]] for e in range(3)])[:, :, None] for x in (q, k, v)]
            out = cache.step(*here, lengths=counts)
            for e in (e for e in range(3) if counts[e]):
                assert torch.equal(out[e : e + 1], alone[e].step(*(x[e : e + 1] for x in here)))
                at[e] += 1


def test_bytes_of_a_batch_are_the_sum_of_forecasts() -> None:
    pattern, package = compiled("strided")
    classes, cache, counts = lower(pattern), package.KVCache(3), [100, 7, 64]
    cache.step(*(torch.zeros(3, heads, 100, 16) for heads in (4, 2, 2)), lengths=counts)
    assert cache.bytes == sum(forecast(classes, n, "fp32").model["kv_bytes_kept"] for n in counts)
