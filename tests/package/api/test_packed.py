"""Packed sequences (varlen) with gradients, paged caches and decoding, each against dense attention per sequence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.package.api.paged import cumulative
from tests.package.made import TOLERANCE, check, compiled, exact, off, run

FP32 = TOLERANCE[torch.float32]
SEQUENCES = [(0, 0), (1, 1), (45, 45), (0, 7), (7, 0), (3, 90), (61, 20), (1, 130), (16, 16)]  # queries, keys


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
