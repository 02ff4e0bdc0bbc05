"""Paged caches and decoding, each against dense attention per request."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
import torch

from tests.package.api.paged import Paged, paged, per_request
from tests.package.made import TOLERANCE, compiled, off

FP32 = TOLERANCE[torch.float32]


LAYOUTS = ["plain", "[blocks, kv_heads, page, 2*dim]", "[blocks, 2, page, kv_heads, dim]"]
MIXED = [(1, 97), (40, 40), (0, 0), (13, 100), (1, 1), (0, 30), (5, 150)]  # decoding, a prompt, chunks, idle


def few_too(package: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few queries a request has, they go the way that the fixture `cpu_path` asks for."""
    monkeypatch.setattr(importlib.import_module(f"{package.__name__}.cpu.packed"), "FEW_QUERIES", 0)


@pytest.mark.parametrize("vllm", LAYOUTS)
@pytest.mark.parametrize("page", [16, 24, 48, 256])
@pytest.mark.parametrize("name", ["strided", "tokens", "starved", "drawn"])
def test_paged_mixed_batch(
    name: str, page: int, vllm: str, cpu_path: str, poisoned: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One launch for decoding, chunked prefill and whole prompts; pages of other sizes than the block, in any order."""
    pattern, package = compiled(name)
    few_too(package, monkeypatch)
    case = paged(pattern, MIXED, page, vllm)
    found = package.attention_paged(case.q, case.k_cache, case.v_cache, *case.where, return_lse=True)
    for x, true in zip(found, per_request(pattern, case), strict=True):
        assert off(x, true) <= FP32


@pytest.mark.parametrize("q_len", [1, 3])
@pytest.mark.parametrize("name", ["strided", "tokens", "some_dense", "one_kv_head"])
def test_decode(name: str, q_len: int, cpu_path: str, poisoned: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest token of each request, or a few; patterns that differ within a KV group."""
    pattern, package = compiled(name)
    few_too(package, monkeypatch)
    case = paged(pattern, [(q_len, n) for n in (3, 17, 64, 131)], 24, LAYOUTS[1])
    q = case.q.view(4, q_len, pattern.heads, pattern.head_dim)
    out, lse = package.decode(q, case.k_cache, case.v_cache, *case.where[:2], return_lse=True)
    true, true_lse = per_request(pattern, case)
    assert out.shape == q.shape and lse.shape == (4, pattern.heads, q_len)
    assert off(out.flatten(0, 1), true) <= FP32
    assert off(lse.transpose(0, 1).flatten(1), true_lse) <= FP32


def test_pages_that_no_row_keeps_are_not_read(cpu_path: str, poisoned: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """All keys that no head keeps are NaN: a path that gathered them would give NaN."""
    pattern, package = compiled("window")
    few_too(package, monkeypatch)
    case = paged(pattern, [(1, 300)], 16, LAYOUTS[0])
    clean = package.attention_paged(case.q, case.k_cache, case.v_cache, *case.where)
    case.storage[:, case.block_table[0, :10].long()] = float("nan")
    again = package.attention_paged(case.q, case.k_cache, case.v_cache, *case.where)
    assert torch.equal(again, clean)
    case.storage[:, case.block_table[0, 17].long()] = float("nan")  # negative control: one that is kept
    assert package.attention_paged(case.q, case.k_cache, case.v_cache, *case.where).isnan().any()


@pytest.mark.parametrize("page", [-1, 1 << 20])
def test_a_page_that_is_not_there(page: int, cpu_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory outside of the cache is not read; where nothing of a page is kept, it need not be there."""
    pattern, package = compiled("window")
    few_too(package, monkeypatch)
    case = paged(pattern, [(1, 300)], 16, LAYOUTS[0])
    case.block_table[0, :10] = page
    package.attention_paged(case.q, case.k_cache, case.v_cache, *case.where)
    case.block_table[0, 17] = page
    with pytest.raises(ValueError, match=f"block_table names page .*{page}"):
        package.attention_paged(case.q, case.k_cache, case.v_cache, *case.where)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_pages_of_every_type(
    dtype: torch.dtype, cpu_path: str, poisoned: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And by the way that was asked for, where it takes the type."""
    pattern, package = compiled("tokens")
    part, asked = importlib.import_module(f"{package.__name__}.cpu.compiled"), []
    kernels = part.forward
    few_too(package, monkeypatch)
    monkeypatch.setattr(part, "forward", lambda *all: asked.append(all) or kernels(*all))
    case = paged(pattern, MIXED, 24, LAYOUTS[1])
    rounded = [x.to(dtype) for x in (case.q, case.k_cache, case.v_cache)]
    true, _ = package.attention_paged(*(x.double() for x in rounded), *case.where, return_lse=True)  # fp64: torch's way
    assert not asked
    assert off(package.attention_paged(*rounded, *case.where), true) <= TOLERANCE[dtype]
    takes = cpu_path == "compiled" and part.usable(rounded[0])
    assert len(asked) == (len(MIXED) if takes else 0)
    monkeypatch.undo()
    monkeypatch.setenv("PATTERNCC_CPU", cpu_path)
    monkeypatch.setattr(part, "forward", lambda *all: asked.append(all) or kernels(*all))
    package.attention_paged(*rounded, *case.where)
    assert len(asked) == (len(MIXED) + 1 if takes else 0)  # the prompt of 40


def test_a_wrong_page_is_seen(cpu_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: two pages exchanged in the table."""
    pattern, package = compiled("strided")
    few_too(package, monkeypatch)
    case = paged(pattern, [(1, 97), (40, 40)], 16, LAYOUTS[0])
    case.block_table[0, [4, 5]] = case.block_table[0, [5, 4]]
    out = package.attention_paged(case.q, case.k_cache, case.v_cache, *case.where)
    true, _ = per_request(pattern, case)
    assert off(out[:1], true[:1]) > 1e-2
    assert off(out[1:], true[1:]) <= FP32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype, poisoned: None) -> None:
    pattern, package = compiled("strided")
    case = paged(pattern, MIXED, 32, LAYOUTS[2])
    q, k_cache, v_cache = (x.to(dtype) for x in (case.q, case.k_cache, case.v_cache))
    out = package.attention_paged(q, k_cache, v_cache, *case.where)
    rounded = Paged(
        case.q_lens,
        case.lengths,
        q.float(),
        [x.to(dtype).float() for x in case.keys],
        [x.to(dtype).float() for x in case.values],
        k_cache,
        v_cache,
        case.block_table,
        case.storage,
    )
    assert out.dtype == dtype
    assert off(out, per_request(pattern, rounded)[0]) <= TOLERANCE[dtype]
