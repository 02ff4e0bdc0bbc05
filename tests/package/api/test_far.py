"""Queries and keys far from each other, as steps of a ring have them: output, LSE and gradients on either way of the
CPU, against dense attention in fp64."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from patterncc import reference
from patterncc.language.model import Pattern
from tests.package.made import TOLERANCE, cancelling, check, compiled, run, tensors, weights_like

pytestmark = pytest.mark.usefixtures("cpu_path", "poisoned")
PLACES = {  # queries, keys, where they begin
    "more queries than keys": (300, 20, -280, 0),
    "many to one": (257, 1, -256, 0),
    "keys far behind": (290, 300, 8192, 0),
    "keys just behind": (290, 300, 304, 0),
    "keys beyond a span": (270, 33, 4800, 640),
    "keys far ahead": (290, 300, 0, 8192),
    "queries of two spans": (300, 40, 4000, 3968),
    "before the first": (290, 300, -5000, 0),
}


def exactly(pattern: Pattern, q: Tensor, k: Tensor, v: Tensor, q_start: int, kv_start: int) -> tuple[Tensor, Tensor]:
    """Dense attention where the first query stands at q_start and the first key at kv_start; differentiable."""
    t, u = np.arange(q_start, q_start + q.shape[2]), np.arange(kv_start, kv_start + k.shape[2])
    kept = torch.stack([torch.from_numpy(reference.keeps(pattern, 0, head, t, u)) for head in range(pattern.heads)])
    empty = ~kept.any(-1, keepdim=True)
    k, v = (x.repeat_interleave(pattern.group, 1) for x in (k, v))
    scores = (q @ k.mT * pattern.head_dim**-0.5).masked_fill(~kept, -float("inf")).masked_fill(empty, 0.0)
    lse = scores.logsumexp(-1, keepdim=True)
    out = (scores - lse).exp() @ v
    return out.masked_fill(empty, 0.0), lse.masked_fill(empty, -float("inf"))[..., 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("name", ["strided", "tokens", "some_dense", "dilated", "drawn", "both_ways"])
def test_attention(name: str, where: str, dtype: torch.dtype) -> None:
    (pattern, package), (queries, keys, q_start, kv_start) = compiled(name), PLACES[where]
    inputs = tensors(pattern, queries, keys, dtype=dtype)
    place = {"q_start": q_start, "kv_start": kv_start}
    true_lse = exactly(pattern, *(x.double() for x in inputs), **place)[1]
    dout, dlse = weights_like(inputs)
    weights = dout, dlse.masked_fill(true_lse == -float("inf"), 0.0)
    found = run(lambda *x: package.attention(*x, return_lse=True, **place), inputs, weights)
    true = run(lambda *x: exactly(pattern, *x, **place), [x.double() for x in inputs], weights)
    check(found, true, TOLERANCE[dtype], cancelling(inputs, weights, true, None))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("name", ["strided", "window", "both_ways"])
def test_packed_sequences(name: str, dtype: torch.dtype) -> None:
    """Packed sequences with more queries than keys equal what `attention` gives one by one."""
    pattern, package = compiled(name)
    lengths = [(300, 20), (257, 1), (5, 300), (40, 0)]
    starts = [torch.tensor([0, *(pair[n] for pair in lengths)]).cumsum(0).int() for n in range(2)]
    parts = [tensors(pattern, *pair, dtype=dtype) for pair in lengths]
    q, k, v = (torch.cat([part[n] for part in parts], 2)[0].transpose(0, 1) for n in range(3))
    out, lse = package.attention_varlen(q, k, v, *starts, 300, 300, return_lse=True)
    for part, (a, b) in zip(parts, pairwise(starts[0].tolist()), strict=True):
        true, true_lse = package.attention(*part, return_lse=True)
        assert torch.equal(out[a:b].transpose(0, 1)[None], true) and torch.equal(lse[None, :, a:b], true_lse)


@pytest.mark.parametrize("name", ["strided", "window"])
def test_a_ring_is_the_whole(name: str) -> None:
    """Ranks of 304 tokens, each over the keys of every rank in turn, in fp64."""
    pattern, package = compiled(name)
    q, k, v = tensors(pattern, 4 * 304, dtype=torch.float64)
    cuts = list(pairwise(range(0, 5 * 304, 304)))
    whole = package.attention(q, k, v)
    for a, b in cuts:
        steps = [
            package.attention(q[:, :, a:b], k[:, :, c:d], v[:, :, c:d], q_start=a, kv_start=c, return_lse=True)
            for c, d in cuts
        ]
        out, _ = package.combine(*zip(*steps, strict=True))
        assert (out - whole[:, :, a:b]).norm() <= TOLERANCE[torch.float64] * whole.norm()
