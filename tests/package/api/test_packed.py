"""Packed sequences (varlen) with gradients, paged caches and decoding, each against dense attention per sequence."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
from torch import Tensor

from patterncc import reference
from patterncc.language.model import Pattern
from tests.package.made import TOLERANCE, check, compiled, exact, off, run

FP32 = TOLERANCE[torch.float32]
SEQUENCES = [(0, 0), (1, 1), (45, 45), (0, 7), (7, 0), (3, 90), (61, 20), (1, 130), (16, 16)]  # queries, keys


def cumulative(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


@pytest.mark.parametrize("sequences", [SEQUENCES, [(0, 0)], [(33, 33)]], ids=["mixed", "empty", "one"])
@pytest.mark.parametrize("name", ["strided", "tokens", "starved", "drawn", "both_ways", "one_kv_head"])
def test_varlen(name: str, sequences: list[tuple[int, int]], poisoned: None) -> None:
    """Every sequence has the pattern from its own start; output, LSE and gradients."""
    pattern, package = compiled(name)
    torch.manual_seed(3)
    q_lens, k_lens = (list(x) for x in zip(*sequences, strict=True))
    q = torch.randn(sum(q_lens), pattern.heads, pattern.head_dim)
    k, v = torch.randn(2, sum(k_lens), pattern.kv_heads, pattern.head_dim).unbind()
    dout, dlse = torch.randn_like(q), torch.randn(pattern.heads, len(q))
    lengths = cumulative(q_lens), cumulative(k_lens), max(q_lens), max(k_lens)
    found = run(lambda q, k, v: package.attention_varlen(q, k, v, *lengths, return_lse=True), (q, k, v), (dout, dlse))
    parts: list[dict[str, Tensor]] = []
    for n in range(len(sequences)):
        queries, keys = (slice(int(x[n]), int(x[n + 1])) for x in lengths[:2])
        inputs = [x[at].transpose(0, 1)[None] for x, at in ((q, queries), (k, keys), (v, keys))]
        weights = dout[queries].transpose(0, 1)[None], dlse[None, :, queries]
        if inputs[0].shape[2] and inputs[1].shape[2]:
            parts.append(exact(pattern, inputs, weights))
        else:  # torch's softmax knows no empty rows
            nothing = {"out": inputs[0] * 0, "lse": torch.full_like(weights[1], float("-inf"))}
            parts.append({**nothing, "dq": inputs[0] * 0, "dk": inputs[1] * 0, "dv": inputs[2] * 0})
    lse = torch.cat([part["lse"][0] for part in parts], 1)
    rest = {key: torch.cat([part[key][0].transpose(0, 1) for part in parts]) for key in ("out", "dq", "dk", "dv")}
    check(found, {"lse": lse, **rest}, FP32)


def test_varlen_of_one_sequence_is_attention(poisoned: None) -> None:
    pattern, package = compiled("strided")
    torch.manual_seed(0)
    q = torch.randn(90, pattern.heads, pattern.head_dim)
    k, v = torch.randn(2, 90, pattern.kv_heads, pattern.head_dim).unbind()
    packed = package.attention_varlen(q, k, v, cumulative([90]), cumulative([90]), 90, 90)
    assert torch.equal(packed.transpose(0, 1), package.attention(*(x.transpose(0, 1)[None] for x in (q, k, v)))[0])


def test_varlen_with_some_heads(poisoned: None) -> None:
    pattern, package = compiled("strided")
    torch.manual_seed(0)
    q = torch.randn(90, pattern.heads, pattern.head_dim)
    k, v = torch.randn(2, 90, pattern.kv_heads, pattern.head_dim).unbind()
    lengths = cumulative([50, 40]), cumulative([50, 40]), 50, 50
    whole = package.attention_varlen(q, k, v, *lengths)
    half = package.attention_varlen(q[:, 2:], k[:, 1:], v[:, 1:], *lengths, head_offset=2)
    assert off(half, whole[:, 2:].double()) <= FP32


@dataclass(frozen=True)
class Paged:
    """Requests whose keys lie in shuffled pages of a cache; what holds no key of a request is NaN."""

    q_lens: list[int]
    lengths: list[int]
    q: Tensor  # [total_q, heads, dim]
    keys: list[Tensor]  # [kv_heads, length, dim] of each request
    values: list[Tensor]
    k_cache: Tensor  # [pages, page_size, kv_heads, dim], a view of `storage`
    v_cache: Tensor
    block_table: Tensor
    storage: Tensor

    @property
    def where(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.block_table, torch.tensor(self.lengths).int(), cumulative(self.q_lens)


def paged(pattern: Pattern, requests: list[tuple[int, int]], page: int, vllm: str) -> Paged:
    """`vllm`: the layout of the storage, of which k_cache and v_cache are views."""
    torch.manual_seed(page)
    heads, dim = pattern.kv_heads, pattern.head_dim
    q_lens, lengths = (list(x) for x in zip(*requests, strict=True))
    needs = [-(-length // page) for length in lengths]
    pages = sum(needs) + 3
    if vllm == "[blocks, kv_heads, page, 2*dim]":
        storage = torch.full((pages, heads, page, 2 * dim), float("nan"))
        k_cache, v_cache = (x.transpose(1, 2) for x in storage.split(dim, dim=-1))
    elif vllm == "[blocks, 2, page, kv_heads, dim]":
        storage = torch.full((pages, 2, page, heads, dim), float("nan"))
        k_cache, v_cache = storage.unbind(1)
    else:
        storage = torch.full((2, pages, page, heads, dim), float("nan"))
        k_cache, v_cache = storage.unbind(0)
    shuffled = torch.randperm(pages)
    table = torch.full((len(requests), max(needs) + 2), -1, dtype=torch.int32)  # past the end: no page at all
    keys, values, first = [], [], 0
    for n, (length, need) in enumerate(zip(lengths, needs, strict=True)):
        mine = shuffled[first : first + need]
        first, table[n, :need] = first + need, mine.int()
        k, v = torch.randn(2, length, heads, dim).unbind()
        token = torch.arange(length)
        k_cache[mine[token // page], token % page] = k
        v_cache[mine[token // page], token % page] = v
        keys.append(k.transpose(0, 1))
        values.append(v.transpose(0, 1))
    q = torch.randn(sum(q_lens), pattern.heads, dim)
    return Paged(q_lens, lengths, q, keys, values, k_cache, v_cache, table, storage)


def per_request(pattern: Pattern, case: Paged) -> tuple[Tensor, Tensor]:
    """Output [total_q, heads, dim] and LSE [heads, total_q] of dense attention."""
    outs, lses, first = [], [], 0
    for n, (q_len, length) in enumerate(zip(case.q_lens, case.lengths, strict=True)):
        q = case.q[first : first + q_len].transpose(0, 1)[None]
        first += q_len
        if q_len and length:
            out, lse = reference.attention(pattern, q, case.keys[n][None], case.values[n][None])
            outs.append(out[0].transpose(0, 1))
            lses.append(lse[0])
    return torch.cat(outs), torch.cat(lses, 1)


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
