"""The compact cache among torch's modes and devices: inference, autocast, no waiting, and operators counted."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.package.kvcache.test_cache import FP32, MONOTONE
from tests.package.made import TOLERANCE, compiled, off


@pytest.mark.parametrize("inside", list(itertools.product([True, False], repeat=3)))
def test_inference_mode_comes_and_goes(inside: tuple[bool, ...]) -> None:
    """Made in it, or grown in it, and used outside; and the other way round."""
    pattern, package = compiled("strided")
    torch.manual_seed(1)
    inputs = [torch.randn(1, heads, 120, 16) for heads in (4, 2, 2)]
    with torch.inference_mode(inside[0]):
        cache = package.KVCache(1)
    with torch.inference_mode(inside[1]):
        first = cache.step(*(x[:, :, :90] for x in inputs))
    outs = [first]
    with torch.inference_mode(inside[2]):
        outs += [cache.step(*(x[:, :, n : n + 1] for x in inputs)) for n in range(90, 120)]
    assert off(torch.cat(outs, 2), reference.attention(pattern, *inputs)[0]) <= FP32


@pytest.mark.parametrize("more", [{}, {"max_length": 40}], ids=["", "max_length"])
def test_a_cache_made_in_inference_mode_takes_token_by_token(more: dict[str, int], cpu_path: str) -> None:
    """Its first memory is written to, where a first prompt makes other."""
    pattern, package = compiled("strided")
    inputs = [torch.randn(1, heads, 40, 16) for heads in (4, 2, 2)]
    with torch.inference_mode():
        cache = package.KVCache(1, **more)
        outs = [cache.step(*(x[:, :, n : n + 1] for x in inputs)) for n in range(20)]
    outs += [cache.step(*(x[:, :, n : n + 1] for x in inputs)) for n in range(20, 40)]
    assert off(torch.cat(outs, 2), reference.attention(pattern, *inputs)[0]) <= FP32


def test_autocast_casts_to_the_dtype_of_the_cache() -> None:
    """Under autocast `linear` gives bf16 and a norm fp32: the cache takes both; and its own products are not cast."""
    pattern, package = compiled("strided")
    torch.manual_seed(1)
    q, k, v = (torch.randn(1, heads, 80, 16).bfloat16() for heads in (4, 2, 2))
    true = reference.attention(pattern, q, k, v)[0]
    for dtype in (torch.bfloat16, torch.float32):
        cache = package.KVCache(1, dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16):
            steps = zip(*(x.split([60, *[1] * 20], 2) for x in (q.float(), k, v)), strict=True)
            out = torch.cat([cache.step(*step) for step in steps], 2)
        assert out.dtype == dtype
        assert off(out, true) <= TOLERANCE[dtype]


def test_nothing_is_read_back_from_the_device() -> None:
    """Tensors without data are a device that cannot be waited for, and that mixes with no other: what the host decides
    it knows from the lengths. The host's own tables are made before."""
    for name in ("strided", "tokens"):
        _, package = compiled(MONOTONE[name])
        package.KVCache(1, max_length=500)

        def come(batch: int, n: int) -> list[Tensor]:
            return [torch.empty(batch, heads, n, 16, device="meta") for heads in (4, 2, 2)]

        cache = package.KVCache(2, device="meta")
        assert cache.step(*come(2, 100), lengths=[100, 30]).shape == (2, 4, 100, 16)
        for _ in range(50):
            assert cache.step(*come(2, 1)).device.type == "meta"
        cache.step(*come(2, 4), lengths=torch.tensor([1, 4]))
        cache = cache.fork([1, -1, 0])
        cache.step(*come(3, 70))
        assert cache.step(*come(3, 1)).shape == (3, 4, 1, 16)
        assert cache.bytes > 0
        with pytest.raises((RuntimeError, NotImplementedError)):  # what this test would see
            cache.lengths.tolist()


def test_a_step_costs_what_is_kept() -> None:
    """The same operators after 600 and after 3,000 tokens of a window, on as many places."""
    _, package = compiled("window")
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.calls, self.largest = 0, 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            self.calls += 1
            self.largest = max([self.largest, *(x.numel() for x in [out] if isinstance(x, Tensor))])
            return out

    cache, seen = package.KVCache(1), []
    for n in (600, 2400):
        cache.step(*(torch.zeros(1, heads, n, 16) for heads in (4, 2, 2)))
        for _ in range(40):
            cache.step(*(torch.zeros(1, heads, 1, 16) for heads in (4, 2, 2)))
        with Count() as count:
            cache.step(*(torch.zeros(1, heads, 1, 16) for heads in (4, 2, 2)))
        seen.append((count.calls, count.largest))
    assert seen[0] == seen[1]
