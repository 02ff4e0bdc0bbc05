"""Values of the wrong kind or size: a TypeError or ValueError that names the argument, never what torch makes of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tests.package.made import compiled, off

Q, K = torch.zeros(1, 4, 9, 16), torch.zeros(1, 2, 9, 16)
PACKED, KEYS, CACHE = torch.zeros(9, 4, 16), torch.zeros(9, 2, 16), torch.zeros(3, 16, 2, 16)
CU, TABLE, LENGTHS = (torch.tensor(x, dtype=torch.int32) for x in ([0, 9], [[0, 2]], [20]))
ONE = torch.zeros(1, 1, 4, 16)  # decode's q
HUGE = 1 << 70

Call = Callable[[ModuleType], Any]
KINDS: dict[str, tuple[Call, str]] = {
    "an array": (lambda p: p.attention(Q.numpy(), K, K), "q is a torch.Tensor; got numpy.ndarray [1, 4, 9, 16]: use"),
    "None": (lambda p: p.attention(Q, None, K), "k is a torch.Tensor; got None"),
    "a list": (lambda p: p.attention(Q, K, [0.5] * 99), "v is a torch.Tensor; got [0.5, 0.5"),
    "sparse": (lambda p: p.attention(Q.to_sparse(), K, K), "q must be a dense tensor; it is sparse_coo"),
    "layer": (lambda p: p.attention(Q, K, K, layer=1.0), "layer is a whole number; got 1.0 (float)"),
    "a bool": (lambda p: p.attention(Q, K, K, layer=False), "layer is a whole number; got False"),
    "a text": (lambda p: p.attention(Q, K, K, layer="0"), "layer is a whole number; got '0' (str)"),
    "0.0 in a tensor": (lambda p: p.attention(Q, K, K, layer=torch.tensor(0.0)), "got a tensor [] of float32"),
    "False in a tensor": (lambda p: p.attention(Q, K, K, layer=torch.tensor(False)), "got a tensor [] of bool"),
    "head_offset": (lambda p: p.attention(Q, K, K, head_offset=None), "head_offset is a whole number; got None"),
    "kv_start": (lambda p: p.attention(Q, K, K, kv_start=0.0), "kv_start is a whole number"),
    "q_start": (lambda p: p.attention(Q, K, K, q_start=1.5), "q_start is a whole number"),
    "scale": (lambda p: p.attention(Q, K, K, scale="0.1"), "scale is a number; got '0.1' (str)"),
    "a scale's bool": (lambda p: p.decode(ONE, CACHE, CACHE, TABLE, LENGTHS, scale=True), "scale is a number"),
    "a scale to learn": (
        lambda p: p.attention(Q, K, K, scale=torch.tensor(0.5, requires_grad=True)),
        "has no gradient: multiply q by the tensor, with scale=1.0",
    ),
    "varlen's q": (lambda p: p.attention_varlen(PACKED.numpy(), KEYS, KEYS, CU, CU, 9, 9), "q is a torch.Tensor"),
    "cu_seqlens": (
        lambda p: p.attention_varlen(PACKED, KEYS, KEYS, CU, [0, 9], 9, 9),
        "cu_seqlens_k is a torch.Tensor",
    ),
    "max_seqlen": (lambda p: p.attention_varlen(PACKED, KEYS, KEYS, CU, CU, 9, None), "max_seqlen_k is a whole number"),
    "pages as a list": (lambda p: p.decode(ONE, CACHE, CACHE, [[0, 2]], LENGTHS), "block_table is a torch.Tensor"),
    "pages as floats": (lambda p: p.decode(ONE, CACHE, CACHE, TABLE.float(), LENGTHS), "two-dimensional int32"),
    "seq_lens": (lambda p: p.decode(ONE, CACHE, CACHE, TABLE, [20]), "seq_lens is a torch.Tensor; got [20] (list)"),
    "decode's q": (lambda p: p.decode(None, CACHE, CACHE, TABLE, LENGTHS), "q is a torch.Tensor; got None"),
    "max_q_len": (
        lambda p: p.attention_paged(PACKED, CACHE, CACHE, TABLE, LENGTHS, CU, max_q_len=9.0),
        "max_q_len is a whole number",
    ),
    "a mask's layer": (lambda p: p.dense_mask(9, layer=0.0), "layer is a whole number; got 0.0 (float)"),
    "no parts": (lambda p: p.combine(None, None), "outputs and the LSEs of all parts; got None"),
    "parts that are arrays": (lambda p: p.combine([np.zeros((9, 4))], [np.zeros(9)]), "outs[0] is a torch.Tensor"),
    "a cache of int32": (lambda p: p.KVCache(1, dtype=torch.int32), "dtype is int32; float32, float16 and bfloat16"),
    "a dtype by name": (
        lambda p: p.KVCache(1, dtype="bf16"),
        "dtype is a torch.dtype, like torch.bfloat16; got 'bf16'",
    ),
    "a batch": (lambda p: p.KVCache(1.0), "batch is a whole number; got 1.0"),
    "max_length": (lambda p: p.KVCache(1, max_length="5"), "max_length is a whole number; got '5'"),
    "a cache's heads": (lambda p: p.KVCache(1, heads=4.0), "heads is a whole number"),
    "step's v": (lambda p: p.KVCache(1).step(Q, K, None), "v is a torch.Tensor; got None"),
    "ranks": (lambda p: p.exchange_plan(90, "2"), "ranks is a whole number; got '2' (str)"),
    "bounds": (lambda p: p.exchange_plan(90, [0, 1.5, 6]), "ranks[1] is a whole number; got 1.5"),
    "bytes": (lambda p: p.exchange_plan(90, 2).bytes(0, 1, "bf16"), "dtype is a torch.dtype"),
    "no plan": (lambda p: p.attention_split(Q, K, K, None), "plan is what exchange_plan gives; got None"),
}
SIZES: dict[str, tuple[Call, str]] = {
    "before the first key": (lambda p: p.attention(Q, K, K, kv_start=-16), "kv_start is a whole number from 0 to"),
    "kv_start": (lambda p: p.attention(Q, K, K, kv_start=16 << 40), "from 0 to 2,147,483,647; got 17592186044416"),
    "q_start": (lambda p: p.attention(Q, K, K, q_start=HUGE), "q_start is a whole number from -2,147,483,648 to"),
    "layer": (lambda p: p.attention(Q, K, K, layer=HUGE), "layer is a whole number from"),
    "scale": (lambda p: p.attention(Q, K, K, scale=float("nan")), "scale is a finite number; got nan"),
    "q of no dimensions": (lambda p: p.attention(Q.sum(), K, K), "q is [batch, heads, q_len, head_dim]"),
    "max_seqlen": (lambda p: p.attention_varlen(PACKED, KEYS, KEYS, CU, CU, -1, 9), "max_seqlen_q is a whole number"),
    "a longer sequence": (
        lambda p: p.attention_varlen(PACKED, KEYS, KEYS, CU, CU, 9, 8),
        "max_seqlen_k is the most tokens that a sequence has; it is 8, and one has 9",
    ),
    "tokens before heads": (
        lambda p: p.attention(Q.transpose(1, 2), K, K),
        "q has 9 heads and head_offset=0. q is [batch, heads, q_len, head_dim]; head_offset",
    ),
    "heads before tokens": (
        lambda p: p.attention_varlen(PACKED.transpose(0, 1), KEYS, KEYS, CU, CU, 9, 9),
        "q has 9 heads and head_offset=0. q is [..., heads, head_dim]; head_offset",
    ),
    "a longer request": (
        lambda p: p.attention_paged(PACKED, CACHE, CACHE, TABLE, LENGTHS, CU, max_q_len=8),
        "max_q_len is the most tokens that a sequence has; it is 8, and one has 9",
    ),
    "no offsets": (lambda p: p.attention_varlen(PACKED, KEYS, KEYS, CU[:0], CU[:0], 9, 9), "are [sequences + 1]"),
    "a page beyond": (lambda p: p.decode(ONE, CACHE, CACHE, TABLE + 1, LENGTHS), "0 to 2; block_table names page"),
    "a page before": (lambda p: p.decode(ONE, CACHE, CACHE, TABLE - 1, LENGTHS), "block_table names page -1"),
    "seq_lens": (lambda p: p.decode(ONE, CACHE, CACHE, TABLE, -LENGTHS), "seq_lens are numbers of tokens; one is -20"),
    "dense_mask": (lambda p: p.dense_mask(9, HUGE), "kv_len is a number of tokens, 2,147,483,647 at most"),
    "a batch": (lambda p: p.KVCache(10**9), "batch is the number of sequences, 65,536 at most; got 1000000000"),
    "heads": (lambda p: p.KVCache(1, heads=10**9), "small has heads 0 to 3, and not 1000000000 from"),
    "heads after the last": (lambda p: p.KVCache(1, head_offset=9), "heads 0 to 3, and not -5 from head_offset=9 on"),
    "max_length": (lambda p: p.KVCache(1, max_length=10**13), "max_length is a whole number from"),
    "device": (lambda p: p.KVCache(1, device="nowhere"), "device is one of torch's, like 'cuda' or 'cpu'; got"),
    "a cache's lengths": (lambda p: p.KVCache(1).step(Q, K, K, lengths="9"), "lengths must be whole numbers [1]"),
    "entries": (lambda p: p.KVCache(1).fork(None), "index must be whole numbers [entries of the new cache]; got None"),
    "ranks": (lambda p: p.exchange_plan(90, 10**9), "one rank or more, 65,536 at most"),
    "a context": (lambda p: p.exchange_plan(HUGE, 2), "length is a number of tokens, 2,147,483,647 at most"),
    "a rank": (lambda p: p.exchange_plan(90, 2).queries(2), "the plan has ranks 0 to 1; rank=2 is none of them"),
    "a target": (lambda p: p.exchange_plan(90, 2).tokens(0, -1), "target=-1 is none of them"),
    "parts of whole numbers": (lambda p: p.combine([Q.int()], [Q[..., 0].int()]), "floating-point tensors on one"),
}  # fmt: skip


@pytest.mark.parametrize("case", KINDS)
def test_the_kind(case: str) -> None:
    call, said = KINDS[case]
    with pytest.raises(TypeError, match=re.escape(said)):
        call(compiled("strided")[1])


@pytest.mark.parametrize("case", SIZES)
def test_the_size(case: str) -> None:
    call, said = SIZES[case]
    with pytest.raises(ValueError, match=re.escape(said)):
        call(compiled("strided")[1])


def test_whole_numbers_of_other_libraries_are_whole_numbers() -> None:
    """Negative control: what is right passes, as it did."""
    _, package = compiled("strided")
    one, nine = np.int64(0), torch.tensor(9)
    package.attention(Q, K, K, layer=one, head_offset=one, kv_start=one, q_start=one, scale=np.float32(0.5))
    package.attention(Q, K, K, scale=torch.tensor(0.5))
    package.attention_varlen(PACKED, KEYS, KEYS, CU, CU, nine, nine)
    package.KVCache(np.int64(1), layer=one, max_length=nine, device=None).step(Q, K, K, lengths=np.array([5]))
    assert (
        package.exchange_plan(90, np.int64(2)).boundaries
        == package.exchange_plan(90, torch.tensor([0, 3, 6])).boundaries
    )
    package.decode(ONE, CACHE, CACHE, torch.tensor([[0, 2, -1]]).int(), LENGTHS)  # no token is in the third page


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_lse_is_fp32_and_fp64_only_for_fp64(dtype: torch.dtype) -> None:
    _, package = compiled("strided")
    q, k, packed, keys, cache, one = (x.to(dtype) for x in (Q, K, PACKED, KEYS, CACHE, ONE))
    found = (
        package.attention(q, k, k, return_lse=True)[1],
        package.attention(*(x.to("meta") for x in (q, k, k)), return_lse=True)[1],
        package.attention_varlen(packed, keys, keys, CU, CU, 9, 9, return_lse=True)[1],
        package.decode(one, cache, cache, TABLE, LENGTHS, return_lse=True)[1],
    )
    assert {x.dtype for x in found} == {torch.float64 if dtype == torch.float64 else torch.float32}


def test_kernels_do_not_take_fp64(monkeypatch: pytest.MonkeyPatch) -> None:
    _, package = compiled("strided")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(
        TypeError, match="small: kernels take float32, float16, bfloat16; float64 is for gradient checks"
    ):
        package.attention(Q.double(), K.double(), K.double())


def test_packed_parts_are_combined_as_they_come() -> None:
    """As many queries as heads: shapes do not tell which is which, so it must be said."""
    _, package = compiled("strided")
    torch.manual_seed(3)
    for queries in (4, 7):
        outs, lses = torch.randn(2, queries, 4, 16), torch.randn(2, 4, queries)
        wanted, total = package.combine(outs, lses.mT.contiguous(), packed=False)
        found, sums = package.combine(outs, lses, packed=True)
        assert torch.equal(found, wanted) and torch.equal(sums, total.mT) and sums.shape == (4, queries)
        assert torch.equal(package.combine(outs, lses.mT)[0], wanted)
        with pytest.raises(ValueError, match="packed=True"):
            package.combine(outs, lses)
        decoded = package.combine(outs[:, None], lses[:, None], packed=True)
        assert torch.equal(decoded[0][0], wanted) and torch.equal(decoded[1][0], sums)
    assert off(package.combine(outs[:, :4], lses[..., :4], packed=False)[0], found[:4].double()) > 0.01  # it matters
    q_as_heads = torch.randn(2, 1, 4, 4, 16), torch.randn(2, 1, 4, 4)  # of `attention`: heads first in both
    assert package.combine(*q_as_heads)[0].shape == (1, 4, 4, 16)
