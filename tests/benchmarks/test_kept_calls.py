"""Calls like one before launch what they would launch if it had not been, whatever else changes between them; and what
is kept of a call is small, and none of its tensors."""

from __future__ import annotations

import gc
import importlib
import weakref
from collections.abc import Callable
from random import Random
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.benchmarks.drawn import drawn
from tests.benchmarks.noted import Gpu
from tests.harness import made

pytestmark = pytest.mark.interpret
HEAD = "pattern: 1\nname: kept_{}\nheads: 4\nkv_heads: 2\nhead_dim: 64\nblock: 16\npromises: {{}}\n"
PATTERNS = {
    "closed": HEAD + "layers: 3\nshards: [{{heads: all, local: 4, stride: 16}}]\ndense_layers: 1",
    "table": HEAD + "layers: 2\nshards: [{{heads: all, local: 21 tokens, random: {{blocks: 2, seed: h}}}}]",
    "values": HEAD + "v_head_dim: 40\nsinks: learned\nshards: [{{heads: all, local: 1, sink: 5 tokens}}]",
}
FAMILIES = ["", "gluon", "gluon", "fused", "triton"]
FACTS = {"scale": 1, "layer": 2, "places": 3, "switch": 5, "shape": 6, "strides": 7, "dtype": 8}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[ModuleType, Gpu]]:
    def of(name: str, arch: str = "sm_90") -> tuple[ModuleType, Gpu]:
        package = made(PATTERNS[name].format(name)).package
        return package, Gpu(package, monkeypatch, arch)

    return of


def wrong(
    package: ModuleType, gpu: Gpu, patch: pytest.MonkeyPatch, *, seed: int, count: int, kinds: int = 12
) -> dict[int, str]:
    """What is wrong with which of so many drawn calls, of so many kinds."""
    chance, found = Random(seed), dict[int, str]()
    for n in range(count):
        number = f"{seed} {chance.randrange(kinds)}"
        kind, own = Random(number), Random(chance.random())
        patch.setenv("PATTERNCC_KERNELS", kind.choice(FAMILIES) if own.random() < 0.85 else own.choice(FAMILIES))
        torch.set_float32_matmul_precision("high" if own.random() < 0.1 else "highest")
        try:
            if why := gpu.why_differing(drawn(package, kind, own)):
                found[n] = why
        finally:
            torch.set_float32_matmul_precision("highest")
    return found


@pytest.mark.parametrize("name", PATTERNS)
def test_drawn_calls_launch_the_same(
    name: str, gpu: Callable[..., tuple[ModuleType, Gpu]], monkeypatch: pytest.MonkeyPatch
) -> None:
    package, of = gpu(name)
    assert not wrong(package, of, monkeypatch, seed=3, count=200, kinds=8)
    assert of.replays > 30, of.replays


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_90", "sm_80", "gfx942"])
@pytest.mark.parametrize("name", PATTERNS)
def test_many_drawn_calls(
    name: str, arch: str, gpu: Callable[..., tuple[ModuleType, Gpu]], monkeypatch: pytest.MonkeyPatch
) -> None:
    package, of = gpu(name, arch)
    for seed in range(10):
        assert not wrong(package, of, monkeypatch, seed=seed, count=600, kinds=30), seed
        of.forget()


@pytest.mark.parametrize("fact", FACTS)
def test_each_fact_of_a_key_is_needed(
    fact: str, gpu: Callable[..., tuple[ModuleType, Gpu]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: where a key leaves it out, drawn calls show it."""
    package, of = gpu("closed")
    key_of, at = of.again.key_of, FACTS[fact]

    def without(*given: Any) -> Any:
        key = key_of(*given)
        if key is None or at < 6:
            return key and (*key[:at], *key[at + 1 :])
        return tuple(x for n, x in enumerate(key) if n < 6 or x is None or (n - at) % 4)

    for part in ("again", "ops", "ops_varlen", "ops_paged"):
        monkeypatch.setattr(importlib.import_module(f"{package.__name__}.api.{part}"), "key_of", without)
    for seed in range(8):
        try:
            if wrong(package, of, monkeypatch, seed=seed, count=100, kinds=8):
                return
        except (RuntimeError, IndexError, AssertionError):
            return
    raise AssertionError("nothing was found")


def calls(package: ModuleType) -> dict[str, Callable[[], list[torch.Tensor]]]:
    """Calls of each function, which return all tensors that they were given and made."""

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.float16, requires_grad=True)

    def ints(*numbers: int) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int32)

    def trained(call: Callable[..., Any], *given: Any) -> list[torch.Tensor]:
        sinks = torch.zeros(4, requires_grad=True)
        out, lse = call(*given, sinks=sinks, return_lse=True)
        leaves, weights = [*given[:3], sinks], [torch.randn_like(out), torch.randn_like(lse)]
        grads = torch.autograd.grad([out, lse], leaves, weights)
        return [*(x for x in given if isinstance(x, torch.Tensor)), sinks, out, lse, *weights, *grads]

    def served(call: Callable[..., Any], *given: torch.Tensor) -> list[torch.Tensor]:
        with torch.no_grad():
            return [*given, *call(*given, return_lse=True)]

    caches = (lambda: zeros(12, 16, 2, 64)), (lambda: torch.zeros(2, 40, dtype=torch.int32))
    return {
        "attention": lambda: trained(package.attention, zeros(1, 4, 90, 64), zeros(1, 2, 90, 64), zeros(1, 2, 90, 64)),
        "varlen": lambda: trained(
            package.attention_varlen,
            zeros(90, 4, 64),
            *(zeros(90, 2, 64), zeros(90, 2, 64)),
            *[ints(0, 40, 90)] * 2,
            50,
            50,
        ),
        "paged": lambda: served(
            package.attention_paged,
            zeros(90, 4, 64),
            *(caches[0](), caches[0]()),
            caches[1](),
            ints(60, 60),
            ints(0, 40, 90),
        ),
        "decode": lambda: served(
            package.decode, zeros(2, 1, 4, 64), *(caches[0](), caches[0]()), caches[1](), ints(60, 60)
        ),
    }


@pytest.mark.parametrize("family", ["triton", "gluon", "fused"])
def test_calls_of_each_family_launch_the_same(
    family: str, gpu: Callable[..., tuple[ModuleType, Gpu]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATTERNCC_KERNELS", family)
    package, of = gpu("closed")
    for name, call in calls(package).items():
        for _ in range(4):
            assert not (why := of.why_differing(call)), (name, why)


@pytest.mark.parametrize("family", ["triton", "gluon", "fused"])
def test_what_is_kept_holds_no_tensor_of_a_call(
    family: str, gpu: Callable[..., tuple[ModuleType, Gpu]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATTERNCC_KERNELS", family)
    package, of = gpu("closed")
    for name, call in calls(package).items():
        of.forget()
        held: list[Any] = []
        for _ in range(4):
            tensors = of.of(call)[1]
            held += [weakref.ref(y) for x in tensors for y in (x, x.untyped_storage())]
            del tensors
        assert len(of.again._recipes) == (2 if name in ("attention", "varlen") else 1), name  # forward and backward
        assert any(x() is not None for x in held)  # control: the launches that were noted hold them
        of.launches, of.held = [], []
        gc.collect()
        assert not [n for n, x in enumerate(held) if x() is not None], name


def test_calls_of_ever_new_shapes_keep_little(
    gpu: Callable[..., tuple[ModuleType, Gpu]], monkeypatch: pytest.MonkeyPatch
) -> None:
    package, of = gpu("closed")
    requests = importlib.import_module(f"{package.__name__}.launch.requests")
    for module, name, most in ((of.again, "MOST", 6), (of.again, "MOST_SEEN", 20), (requests, "MOST_STARTS", 5)):
        monkeypatch.setattr(module, name, most)
    requests._starts.clear()
    held = list[int]()
    for n in range(1, 61):
        q, k, v = (torch.zeros(1, heads, n, 64, requires_grad=True) for heads in (4, 2, 2))
        token, caches = torch.zeros(n, 1, 4, 64), torch.zeros(2, 3, 16, 2, 64)
        table, lengths = torch.zeros(n, 2, dtype=torch.int32), torch.zeros(n, dtype=torch.int32)
        for _ in range(2):
            of.of(lambda: torch.autograd.grad(package.attention(q, k, v).sum(), [q, k, v]))  # noqa: B023
            with torch.no_grad():
                of.of(lambda: package.decode(token, *caches, table, lengths))  # noqa: B023
        assert len(of.again._recipes) <= 6 and len(of.again._seen) <= 20 and len(requests._starts) <= 5
        of.launches, of.held = [], []
        if n % 20 == 0:
            gc.collect()
            held.append(sum(x.nbytes for x in gc.get_objects() if type(x) is torch.Tensor))
    assert held[2] - held[1] < 1 << 16, held  # the least memory of a single call is more


def test_a_call_that_ends_midway_leaves_later_ones_right(
    gpu: Callable[..., tuple[ModuleType, Gpu]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever launch of the first call, or of the second, which makes the recipe, is interrupted."""
    monkeypatch.setenv("PATTERNCC_KERNELS", "gluon")
    package, of = gpu("closed")
    call = calls(package)["varlen"]
    count = len(of.of(call)[0])
    for left in range(2 * count):
        of.forget()
        if left >= count:
            of.of(call)
        of.left = left % count
        with pytest.raises(KeyboardInterrupt):
            of.of(call)
        of.left = -1
        assert of.kept._here.recording is None
        assert not any(of.why_differing(call) for _ in range(4))
        assert of.again._recipes
