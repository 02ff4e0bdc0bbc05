"""What callers may get wrong: each mistake has its message, which says what to change."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.package.made import compiled, tensors

Q, K = (1, 4, 9, 16), (1, 2, 9, 16)


def zeros(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.zeros(shape, dtype=dtype) for shape in shapes]


ATTENTION = {
    "q of three dimensions": ((Q[1:], K, K), {}, ValueError, "q is [batch, heads, q_len, head_dim]"),
    "k and v differ": ((Q, K, (1, 2, 8, 16)), {}, ValueError, "one shape; got [1, 2, 9, 16] and [1, 2, 8, 16]"),
    "batch": (((2, 4, 9, 16), K, K), {}, ValueError, "q has a batch of 2, k and v of 1"),
    "head_dim": (((1, 4, 9, 8), (1, 2, 9, 8), (1, 2, 9, 8)), {}, ValueError, "compiled for head_dim 16; q has 8"),
    "head_dim of k": ((Q, (1, 2, 9, 8), (1, 2, 9, 8)), {}, ValueError, "compiled for head_dim 16; k has 8"),
    "repeated k": (
        (Q, Q, Q),
        {},
        ValueError,
        "read 2 KV heads (2 query heads share one: 4 on 2 in all); k and v have 4: do not repeat k and v",
    ),
    "another model": (
        ((1, 3, 9, 16), (1, 1, 9, 16), (1, 1, 9, 16)),
        {},
        ValueError,
        "share one: 4 on 2 in all); k and v have 1: a model of 3 heads on 1 KV head needs a pattern of as many",
    ),
    "ungrouped": (
        ((1, 2, 9, 16), K, K),
        {},
        ValueError,
        "k and v have 2: do not repeat k and v; a model of 2 heads on 2 KV heads needs a pattern of as many",
    ),
    "too many heads": (((1, 8, 9, 16), K, K), {}, ValueError, "heads 0 to 3; q has 8 heads and head_offset=0"),
    "no heads": (((1, 0, 9, 16), K, K), {}, ValueError, "q has 0 heads"),
    "head_offset": ((Q, K, K), {"head_offset": 1}, ValueError, "q has 4 heads and head_offset=1"),
    "negative head_offset": ((Q, K, K), {"head_offset": -1}, ValueError, "rank * local heads"),
    "layer": ((Q, K, K), {"layer": 1}, ValueError, "small has layer 0 only; layer=1 is none of them"),
    "negative layer": ((Q, K, K), {"layer": -1}, ValueError, "layer=-1 is none of them"),
    "kv_start": ((Q, K, K), {"kv_start": 8}, ValueError, "kv_start=8 must be a multiple of the pattern's block, 16"),
}


@pytest.mark.parametrize("case", ATTENTION)
def test_attention(case: str) -> None:
    shapes, options, error, said = ATTENTION[case]
    _, package = compiled("strided")
    with pytest.raises(error, match=re.escape(said)):
        package.attention(*zeros(*shapes), **options)


@pytest.mark.parametrize(
    ("offsets", "said"),
    [([0, 5, 4, 9], "entry 2 is 4"), ([0, 5, 10], "entry 2 is 10"), ([-1, 9], "entry 0 is -1")],
    ids=str,
)
@pytest.mark.parametrize("name", ["cu_seqlens_q", "cu_seqlens_k", "query_start_loc"])
def test_offsets_of_no_sequences(name: str, offsets: list[int], said: str) -> None:
    _, package = compiled("strided")
    q, k = zeros((9, 4, 16), (9, 2, 16))
    wrong, right = torch.tensor(offsets, dtype=torch.int32), torch.full((len(offsets),), 9, dtype=torch.int32)
    right[0] = 0
    with pytest.raises(ValueError, match=f"{name} never falls, and stays within 0 to 9.*{said}"):
        if name == "query_start_loc":
            cache = torch.zeros(1, 16, 2, 16)
            requests = len(offsets) - 1
            table, lengths = torch.zeros(requests, 1, dtype=torch.int32), torch.ones(requests, dtype=torch.int32)
            package.attention_paged(q, cache, cache, table, lengths, wrong)
        else:
            both = (wrong, right) if name == "cu_seqlens_q" else (right, wrong)
            package.attention_varlen(q, k, k, *both, 9, 9)


def test_more_tokens_than_pages() -> None:
    _, package = compiled("strided")
    (q, cache), table = zeros((2, 1, 4, 16), (3, 16, 2, 16)), torch.zeros(2, 2, dtype=torch.int32)
    with pytest.raises(ValueError, match="seq_lens has 33 tokens, block_table room for 2 pages of 16 tokens"):
        package.decode(q, cache, cache, table, torch.tensor([5, 33], dtype=torch.int32))


def test_dtypes_that_differ() -> None:
    _, package = compiled("strided")
    q, k, v = zeros(Q, K, K)
    with pytest.raises(TypeError, match="q, k and v must have one dtype, not bfloat16 and float32: cast them"):
        package.attention(q.bfloat16(), k, v)
    with pytest.raises(TypeError, match="float32, float16 and bfloat16 are supported"):
        package.attention(*(x.int() for x in (q, k, v)))
    with pytest.raises(TypeError, match="supported"):
        package.attention(*(x.to(torch.float8_e4m3fn) for x in (q, k, v)))


def test_devices_that_differ() -> None:
    _, package = compiled("strided")
    q, k, v = zeros(Q, K, K)
    with pytest.raises(ValueError, match="q, k and v must be on one device, not cpu and meta"):
        package.attention(q, k.to("meta"), v)


def test_meta_tensors_give_meta_tensors() -> None:
    """Shapes without memory, as torch's planning tools use them."""
    _, package = compiled("strided")
    out, lse = package.attention(*(x.to("meta") for x in zeros(Q, K, K)), return_lse=True)
    assert out.is_meta and out.shape == Q and lse.shape == Q[:3]


CU = torch.tensor([0, 9], dtype=torch.int32)
VARLEN = {
    "a batch": ((Q, K, K), (CU, CU), {}, ValueError, "q is [total_q, heads, head_dim]"),
    "k and v differ": (((9, 4, 16), (9, 2, 16), (8, 2, 16)), (CU, CU), {}, ValueError, "one shape"),
    "floats": (((9, 4, 16), (9, 2, 16), (9, 2, 16)), (CU.float(), CU), {}, TypeError, "cu_seqlens_q must be"),
    "not one by one": (((9, 4, 16), (9, 2, 16), (9, 2, 16)), (CU, CU[None]), {}, TypeError, "cu_seqlens_k must be"),
    "other sequences": (((9, 4, 16), (9, 2, 16), (9, 2, 16)), (CU, torch.cat([CU, CU[-1:]])), {}, ValueError,
                        "they have 2 and 3 entries"),
    "elsewhere": (((9, 4, 16), (9, 2, 16), (9, 2, 16)), (CU, CU.to("meta")), {}, ValueError,
                  "cu_seqlens_k is on meta and q on cpu"),
    "layer": (((9, 4, 16), (9, 2, 16), (9, 2, 16)), (CU, CU), {"layer": 3}, ValueError, "layer=3"),
    "heads": (((9, 3, 16), (9, 1, 16), (9, 1, 16)), (CU, CU), {}, ValueError, "read 2 KV heads"),
}  # fmt: skip


@pytest.mark.parametrize("case", VARLEN)
def test_varlen(case: str) -> None:
    shapes, lengths, options, error, said = VARLEN[case]
    _, package = compiled("strided")
    with pytest.raises(error, match=re.escape(said)):
        package.attention_varlen(*zeros(*shapes), *lengths, 9, 9, **options)


CACHE, TABLE, LENGTHS, STARTS = (5, 16, 2, 16), torch.zeros(1, 5).int(), torch.tensor([70]).int(), CU
PAGED = {
    "a batch": ((Q, CACHE, CACHE), (TABLE, LENGTHS, STARTS), ValueError, "the caches are [pages, page_size"),
    "caches differ": (((9, 4, 16), CACHE, (4, 16, 2, 16)), (TABLE, LENGTHS, STARTS), ValueError, "one shape"),
    "heads and pages exchanged": (((9, 4, 16), (5, 2, 16, 16), (5, 2, 16, 16)), (TABLE, LENGTHS, STARTS), ValueError,
                                  "k and v have 16"),
    "starts": (((9, 4, 16), CACHE, CACHE), (TABLE, LENGTHS, STARTS[:1]), ValueError, "got [1, 5], [1] and [1]"),
    "table": (((9, 4, 16), CACHE, CACHE), (TABLE[0], LENGTHS, STARTS), ValueError, "block_table is [requests"),
    "requests": (((9, 4, 16), CACHE, CACHE), (TABLE.repeat(2, 1), LENGTHS, STARTS), ValueError, "got [2, 5]"),
    "lengths": (((9, 4, 16), CACHE, CACHE), (TABLE, LENGTHS.float(), STARTS), TypeError, "seq_lens must be"),
}  # fmt: skip


@pytest.mark.parametrize("case", PAGED)
def test_paged(case: str) -> None:
    shapes, where, error, said = PAGED[case]
    _, package = compiled("strided")
    with pytest.raises(error, match=re.escape(said)):
        package.attention_paged(*zeros(*shapes), *where)


def test_a_cache_whose_last_dimension_is_not_contiguous() -> None:
    _, package = compiled("strided")
    cache = torch.zeros(5, 16, 16, 2).transpose(2, 3)
    with pytest.raises(ValueError, match="last dimension of k_cache and v_cache must be contiguous"):
        package.attention_paged(torch.zeros(9, 4, 16), cache, cache, TABLE, LENGTHS, STARTS)


def test_decode_wants_requests() -> None:
    _, package = compiled("strided")
    with pytest.raises(ValueError, match=re.escape("q is [requests, q_len, heads, head_dim]; got [9, 4, 16]")):
        package.decode(*zeros((9, 4, 16), CACHE, CACHE), TABLE, LENGTHS)


@pytest.mark.parametrize("length", [-1, 2.5, "9", None])
def test_lengths_are_whole_numbers(length: object) -> None:
    _, package = compiled("strided")
    with pytest.raises(ValueError, match="q_len is a number of tokens; got"):
        package.dense_mask(length, 9)
    with pytest.raises(ValueError, match="length is a number of tokens; got"):
        package.exchange_plan(length, 2)
    assert package.dense_mask(np.int64(3), 0).shape == (4, 3, 0)


def test_the_layer_of_a_dense_mask() -> None:
    _, package = compiled("strided")
    with pytest.raises(ValueError, match="small has layer 0 only; layer=1 is none of them"):
        package.dense_mask(9, layer=1)


COMBINE = {
    "no parts": ([], []),
    "an LSE too few": ([(1, 4, 9, 16)] * 2, [(1, 4, 9)]),
    "an LSE of another batch": ([(2, 4, 9, 16)] * 2, [(1, 4, 9)] * 2),
    "parts that differ": ([(2, 4, 9, 16), (1, 4, 9, 16)], [(2, 4, 9), (1, 4, 9)]),
    "packed queries": ([(9, 4, 16)] * 2, [(4, 9)] * 2),
    "decode of one query": ([(3, 1, 4, 16)] * 2, [(3, 4, 1)] * 2),  # would broadcast to [3, 4, 4, 16]
}


@pytest.mark.parametrize("case", COMBINE)
def test_combine(case: str) -> None:
    outs, lses = COMBINE[case]
    _, package = compiled("strided")
    with pytest.raises(ValueError, match=r"takes an output and an LSE of each part|shaped like its output"):
        package.combine(zeros(*outs), zeros(*lses))


def test_what_is_right_passes() -> None:
    """Negative control of this file: the shapes above, without their mistake."""
    pattern, package = compiled("strided")
    package.attention(*zeros(Q, K, K))
    package.attention_varlen(*zeros((9, 4, 16), (9, 2, 16), (9, 2, 16)), CU, CU, 9, 9)
    package.attention_paged(*zeros((9, 4, 16), CACHE, CACHE), TABLE, LENGTHS, STARTS)
    package.decode(*zeros((1, 9, 4, 16), CACHE, CACHE), TABLE, LENGTHS)
    package.attention(*tensors(pattern, 9), kv_start=32, layer=0, head_offset=0)
