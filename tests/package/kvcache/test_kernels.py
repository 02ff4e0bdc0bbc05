"""A step of one token by kernels, in Triton's interpreter: they hold and give what torch's operators do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

from patterncc import reference
from tests.harness import Made
from tests.package.kvcache.kvbatch import ENDS, Batch, ends
from tests.package.kvcache.test_batch import FORKS, STEPS, follow, monotone_patterns
from tests.package.kvcache.test_cache import FP32, MONOTONE, serve
from tests.package.made import TOLERANCE, compiled, made_mask, off, tensors

pytestmark = pytest.mark.interpret
INF, NAN = float("inf"), float("nan")


@contextmanager
def counted(of: Made, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The rows of banks that kernels have put tokens into."""
    module, rows = of.part("launch.cache"), []
    put = module.put

    def seen(bank: Any, *given: Any) -> None:
        rows.append(len(bank.rows))
        put(bank, *given)

    with monkeypatch.context() as patch:
        patch.setattr(module, "put", seen)
        yield rows


@pytest.mark.parametrize(("name", "programs"), [("strided", 1), ("tokens", 3), ("one_kv_head", 1), ("values", 3)])
def test_entries_of_different_lengths(
    name: str, programs: int, monkeypatch: pytest.MonkeyPatch, poisoned: None
) -> None:
    """Prompts of 0 and 70 tokens, steps of one token in which an entry stands still, of several in between, and a fork.
    One program takes the keys of a row, or three share them."""
    made = compiled(MONOTONE[name])
    splits = made.part("launch.configs"), "splits"
    monkeypatch.setattr(*splits, lambda *_: programs)
    batch = Batch(*made, 2)
    torch.manual_seed(3)
    with counted(made, monkeypatch) as rows:
        batch.step(70, [0, 70])
        for n, counts in ((1, [1, 0]), (1, None), (3, [3, 1]), (1, [0, 1]), (1, None)):
            batch.step(n, counts)
        batch.fork([1, -1])
        for counts in (None, [1, 1], [0, 1]):
            batch.step(1, counts)
    assert sum(rows) == 7 * 2 * made.pattern.kv_heads
    batch.check_outputs()


def test_tokens_that_nobody_needs_and_places_that_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second KV head's keys live when the first's have died: banks are made anew, and some tokens take no place."""
    made_mask("ends.npy", ends())
    batch = Batch(*compiled(ENDS), 1)
    torch.manual_seed(4)
    for n in (186, *[1] * 9, 180, *[1] * 9):
        with monkeypatch.context() as patch:
            if n > 1:
                patch.delenv("TRITON_INTERPRET")
            batch.step(n, None)
    batch.check_outputs()


@settings(max_examples=2, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(monotone_patterns(), STEPS, FORKS)
def test_random_patterns_and_steps(pattern: tuple[str, np.ndarray], steps: list[Any], fork: list[int]) -> None:
    follow(pattern, steps, False, fork)


@pytest.mark.slow
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(monotone_patterns(), STEPS, FORKS)
def test_many_random_patterns_and_steps(pattern: tuple[str, np.ndarray], steps: list[Any], fork: list[int]) -> None:
    follow(pattern, steps, True, fork)


class Both:
    """Two caches that take the same steps: one by kernels, one by torch's operators."""

    def __init__(self, made: Made, monkeypatch: pytest.MonkeyPatch, batch: int = 1, **options: Any) -> None:
        self.made, self.patch = made, monkeypatch
        self.caches = [made.package.KVCache(batch, **options) for _ in range(2)]

    def step(self, *inputs: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        by_kernels = self.caches[0].step(*inputs, **options)
        with self.patch.context() as patch:
            patch.delenv("TRITON_INTERPRET")
            by_torch = self.caches[1].step(*inputs, **options)
        return by_kernels, by_torch

    def held(self) -> list[Any]:
        """Of each cache, for each row of each bank: the last queries, whether it is odd, and sums of K and V of what
        is still needed, in the order of the last queries."""
        found = []
        for cache in self.caches:
            rows = []
            for bank in cache._room.banks:
                newest = cache.lengths[bank.index // cache.kv_heads] - 1
                for n in range(len(bank.rows)):
                    lives = bank.until[n, :, : bank.used].amax(0) >= newest[n]
                    sums = [x[n, : bank.used][lives].double().sum(-1).tolist() for x in bank.memory]
                    facts = bank.until[n][:, : bank.used][:, lives].T.tolist(), bank.odd[n, : bank.used][lives].isnan()
                    rows.append(sorted(zip(facts[0], facts[1].tolist(), *sums, strict=True)))
            found.append((cache.lengths.tolist(), rows))
        return found


@pytest.mark.parametrize(
    ("name", "dtype", "options"),
    [
        ("by_group", torch.float16, {}),
        ("chunks", torch.float32, {"head_offset": 1, "heads": 2}),  # parts of two KV heads
        ("some_dense", torch.float32, {"max_length": 90}),
        ("in_rows", torch.float32, {"head_offset": 2, "heads": 1}),
    ],
)
def test_what_is_held_is_what_operators_hold(
    name: str, dtype: torch.dtype, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, poisoned: None
) -> None:
    """After each step, odd keys among them; memory in which numbers do not lie side by side."""
    made = compiled(MONOTONE[name])
    both = Both(made, monkeypatch, dtype=dtype, **options)
    heads, kv_heads = both.caches[0].heads, both.caches[0].kv_heads
    torch.manual_seed(5)
    both.step(*(torch.randn(1, n, 40, 16).to(dtype) for n in (heads, kv_heads, kv_heads)))
    for n in range(6):
        q, k, v = (torch.randn(1, n, 1, 32).to(dtype)[..., ::2] for n in (heads, kv_heads, kv_heads))
        if n == 3:
            k[0, 0, 0, 5], v[0, -1, 0, 3] = NAN, -INF
        found, true = both.step(q, k, v, scale=-0.3 if n == 2 else None)
        assert torch.equal(found.isnan(), true.isnan()) and found.isnan().any() == (n >= 3)
        finite = ~true.isnan()
        assert off(found[finite], true[finite].double()) <= 2 * TOLERANCE[dtype]
        first, second = both.held()
        assert first == second


@pytest.mark.parametrize("sink", [0.5, -INF, INF, NAN])
@pytest.mark.parametrize("programs", [1, 2])
def test_sinks(sink: float, programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = compiled(MONOTONE["strided"])
    monkeypatch.setattr(made.part("launch.configs"), "splits", lambda *_: programs)
    both, sinks = Both(made, monkeypatch), torch.tensor([0.1, sink, -2.0, 1.0])
    inputs = tensors(made.pattern, 40)
    both.step(*(x[:, :, :39] for x in inputs), sinks=sinks)
    found, true = both.step(*(x[:, :, 39:] for x in inputs), sinks=sinks)
    assert torch.equal(found.isnan(), true.isnan())
    assert off(found.nan_to_num(), true.nan_to_num().double()) <= FP32


def test_softcap(monkeypatch: pytest.MonkeyPatch) -> None:
    made = compiled("capped")
    inputs, cache = tensors(made.pattern, 50), made.package.KVCache(1)
    with counted(made, monkeypatch) as rows:
        out = serve(cache, inputs, [46, *[1] * 4])
    assert len(rows) == 4 * len(cache._room.banks)
    assert off(out, reference.attention(made.pattern, *inputs)[0]) <= FP32


def test_other_dtypes_and_modes_are_left_to_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """float64 has no kernel, bfloat16 none in the interpreter; and a mode sees torch's operators."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Seen(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += 1
            return func(*args, **(kwargs or {}))

    made = compiled(MONOTONE["strided"])
    with counted(made, monkeypatch) as rows:
        for dtype in (torch.float64, torch.bfloat16):
            made.package.KVCache(1, dtype=dtype).step(*(torch.randn(1, n, 1, 16).to(dtype) for n in (4, 2, 2)))
        cache, token = made.package.KVCache(1), [torch.randn(1, n, 1, 16) for n in (4, 2, 2)]
        with Seen() as seen:
            cache.step(*token)
        assert not rows and seen.count > 30
        cache.step(*token)
        assert rows


def test_lifetimes_that_are_too_short_are_seen() -> None:
    """Negative control: a token too early, of a window."""
    made = compiled("window")
    inputs, cache = tensors(made.pattern, 42), made.package.KVCache(1)
    cache._lifetimes._window -= 1
    assert off(serve(cache, inputs, [39, 1, 1, 1]), reference.attention(made.pattern, *inputs)[0]) > 1e-3
