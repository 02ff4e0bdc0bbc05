"""What the kernels in C compute: nothing of what is not there, the same on any threads, and as torch's operators do."""

from __future__ import annotations

import importlib
import shutil
from functools import lru_cache

import pytest
import torch

from tests.package.made import HEAD, PATTERNS, TOLERANCE, check, compiled, exact, run, tensors, weights_like

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler")


def test_keys_beyond_the_last_are_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tensors are parts of larger ones that hold NaN otherwise."""
    monkeypatch.setenv("PATTERNCC_CPU", "compiled")
    for name in ("strided", "tokens", "both_ways"):
        pattern, package = compiled(name)
        inputs = tensors(pattern, 77, 141)
        held = []
        for x in inputs:
            room = torch.full((3, x.shape[1] + 2, x.shape[2] + 200, x.shape[3] + 5), float("nan"))
            at = room[1:2, 1:-1, 100:-100, 2:-3]
            held.append(at.copy_(x))
        weights = weights_like(inputs)
        found = run(lambda q, k, v, attend=package.attention: attend(q, k, v, return_lse=True), held, weights)
        check(found, exact(pattern, inputs, weights), TOLERANCE[torch.float32])


def test_nan_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is NaN makes NaN of every query that keeps it, and of no other."""
    monkeypatch.setenv("PATTERNCC_CPU", "compiled")
    pattern, package = compiled("strided")
    q, k, v = tensors(pattern, 150)
    k[:, :, 40] = float("nan")
    out = package.attention(q, k, v)
    keeps = package.dense_mask(150)[:, :, 40]
    assert torch.equal(out[0].isnan().all(-1), keeps) and not out[0][~keeps].isnan().any()


@pytest.mark.parametrize("name", ["strided", "one_kv_head"])
def test_threads_do_not_change_the_output(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three threads for two KV heads or one: each has sums of its own."""
    monkeypatch.setenv("PATTERNCC_CPU", "compiled")
    pattern, package = compiled(name)
    monkeypatch.setattr(importlib.import_module(f"{package.__name__}.cpu.compiled"), "FEW_PAIRS", 0)
    monkeypatch.setattr(importlib.import_module(f"{package.__name__}.cpu.compiled"), "MANY_PAIRS", 5000)
    inputs = tensors(pattern, 200, batch=1)
    weights = weights_like(inputs)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(run(lambda q, k, v: package.attention(q, k, v, return_lse=True), inputs, weights))
            check(found[-1], exact(pattern, inputs, weights), TOLERANCE[torch.float32])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0][part], found[1][part]) for part in ("out", "lse", "dq"))


@pytest.mark.parametrize("name", [name for name in PATTERNS if name != "bands"])  # which the kernels do not know
def test_both_ways_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And are not the same: a switch that does nothing would pass all other tests."""
    pattern, package = compiled(name)
    part, asked = importlib.import_module(f"{package.__name__}.cpu.compiled"), []
    true = part.forward
    monkeypatch.setattr(part, "forward", lambda *all: asked.append(all) or true(*all))
    inputs = tensors(pattern, 600)
    found = []
    for way in ("compiled", "torch"):
        monkeypatch.setenv("PATTERNCC_CPU", way)
        found.append(package.attention(*inputs))
    assert len(asked) == 1
    assert float((found[0] - found[1]).norm() / found[1].norm()) < TOLERANCE[torch.float32]


def test_half_precision_is_left_to_torch_where_the_cpu_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATTERNCC_CPU", "compiled")
    _, package = compiled("strided")
    part = importlib.import_module(f"{package.__name__}.cpu.compiled")
    for has in (True, False):
        monkeypatch.setattr(part, "has_half_products", lambda has=has: has)
        assert part.usable(torch.zeros(1, dtype=torch.bfloat16)) is not has
        assert part.usable(torch.zeros(1))
    assert not part.usable(torch.zeros(1, dtype=torch.float64))


def test_only_tiles_of_half_precision_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dot products of bf16 are none: measured, torch's attention with them is no faster than in fp32."""
    _, package = compiled("strided")
    part = importlib.import_module(f"{package.__name__}.cpu.compiled")
    for capability, tiles, expected in (
        ("AVX2", False, False),
        ("AVX512", False, False),
        ("AVX512", True, True),
        ("NEON", False, True),
    ):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=capability: name)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has=tiles: has, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
        assert part.has_half_products.__wrapped__() is expected


def test_head_dims_that_fill_no_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATTERNCC_CPU", "compiled")
    for dim in (17, 40, 250):
        text = HEAD.replace("head_dim: 16", f"head_dim: {dim}") + "shards: [{heads: all, local: 2, stride: 3}]"
        pattern, package = compiled(text)
        inputs = tensors(pattern, 70)
        weights = weights_like(inputs)
        found = run(lambda q, k, v, attend=package.attention: attend(q, k, v, return_lse=True), inputs, weights)
        check(found, exact(pattern, inputs, weights), TOLERANCE[torch.float32])


def test_gradients_of_any_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of a sum is one number seen everywhere."""
    monkeypatch.setenv("PATTERNCC_CPU", "compiled")
    pattern, package = compiled("strided")
    inputs = tensors(pattern, 70)
    ones = torch.ones(()), torch.ones(())
    weights = ones[0].expand(1, pattern.heads, 70, pattern.head_dim), ones[1].expand(1, pattern.heads, 70)
    found = run(lambda q, k, v: package.attention(q, k, v, return_lse=True), inputs, weights)
    check(found, exact(pattern, inputs, weights), TOLERANCE[torch.float32])


def test_tables_outlive_the_cache_of_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer of more classes than the cache has room for, or whose tables another thread has made, too."""
    monkeypatch.setenv("PATTERNCC_CPU", "compiled")
    pattern, package = compiled("strided")
    part = importlib.import_module(f"{package.__name__}.cpu.compiled")
    for name in ("plan", "_table"):
        monkeypatch.setattr(part, name, lru_cache(maxsize=1)(getattr(part, name).__wrapped__))
    inputs = tensors(pattern, 450)
    weights = weights_like(inputs)
    found = run(lambda q, k, v: package.attention(q, k, v, return_lse=True), inputs, weights)
    check(found, exact(pattern, inputs, weights), TOLERANCE[torch.float32])
    place = part.Position(0, 0, 0, 450, 0, 450)
    problems = [part._problem(klass, place, 1.0, dict(zip("qkv", inputs, strict=True))) for klass in range(4)]
    addresses = [{x.data_ptr() for x in problem.table} for problem in problems]
    assert all({p.pointers, p.whole, p.columns} == at for p, at in zip(problems, addresses, strict=True))
    assert len(set().union(*addresses)) == 3 * len(problems)  # of none is the memory another's
