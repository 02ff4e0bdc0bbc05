"""Sinks that are not finite, on every path: -inf is none at all; of NaN and +inf the output is NaN, as torch's softmax
of such a logit is, and the LSE is what the sink is, also in rows that keep no key. Other heads know nothing of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.kernels.held import HEAD, Held, held

NAN, INF = float("nan"), float("inf")
TEXT = HEAD.replace("kv_heads: 1", "kv_heads: 2") + (
    "shards: [{heads: 0, strides: [{every: 4, offset: 2}]}, {heads: 1, local: 21 tokens}]"  # head 0: rows without keys
)
LENGTH = 40
Attend = Callable[..., "tuple[Tensor, Tensor]"]


def drawn(of: Held) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(3)
    return tuple(torch.randn(1, of.pattern.heads, LENGTH, of.pattern.head_dim) for _ in range(3))  # type: ignore[return-value]


def attention(of: Held, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor) -> tuple[Tensor, Tensor]:
    return of.package.attention(q, k, v, sinks=sinks, return_lse=True)


def varlen(of: Held, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor) -> tuple[Tensor, Tensor]:
    """One sequence, with two rows before it and three behind it, which have no softmax."""
    rows = [torch.nn.functional.pad(x[0].transpose(0, 1), (0, 0, 0, 0, 2, 3)) for x in (q, k, v)]
    starts = torch.tensor([2, 2 + LENGTH], dtype=torch.int32)
    out, lse = of.package.attention_varlen(*rows, starts, starts, LENGTH, LENGTH, sinks=sinks, return_lse=True)
    for none in (slice(0, 2), slice(2 + LENGTH, None)):
        assert (out[none] == 0).all() and lse[:, none].isneginf().all()
    return out[2:-3].transpose(0, 1)[None], lse[None, :, 2:-3]


def paged(of: Held, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor) -> tuple[Tensor, Tensor]:
    caches = [torch.nn.functional.pad(x[0].transpose(0, 1), (0, 0, 0, 0, 0, 8)).unflatten(0, (3, 16)) for x in (k, v)]
    place = torch.arange(3, dtype=torch.int32)[None], torch.tensor([LENGTH], dtype=torch.int32)
    out, lse = of.package.decode(q.transpose(1, 2), *caches, *place, sinks=sinks, return_lse=True)
    return out.transpose(1, 2), lse


def are_same(found: Tensor, true: Tensor) -> bool:
    return torch.allclose(found.double(), true, rtol=1e-5, atol=3e-6, equal_nan=True)


@pytest.mark.parametrize("call", [attention, varlen, paged])
@pytest.mark.parametrize("sink", [NAN, INF, -INF])
def test_output_and_lse(call: Attend, sink: float, path: str) -> None:
    of = held(TEXT)
    inputs = drawn(of)
    for sinks in (torch.tensor([sink, 0.5]), torch.tensor([0.5, sink])):
        true = reference.attention(of.pattern, *inputs, sinks=sinks)
        own = true[0][0, int(sinks[0] == 0.5)]
        assert own.isnan().all() if sink != -INF else own.isfinite().all()
        for x, y in zip(call(of, *inputs, sinks), true, strict=True):
            assert are_same(x, y)


@pytest.mark.parametrize("sink", [NAN, INF])
def test_the_definition_is_torchs(sink: float) -> None:
    """`reference.attention` against torch's softmax of the scores and one logit more."""
    of = held(TEXT)
    q, k, v = (x.double() for x in drawn(of))
    sinks = torch.tensor([sink, 0.5], dtype=torch.float64)
    kept = reference.dense_mask(of.pattern, 0, LENGTH)
    scores = (q @ k.transpose(-1, -2) * 0.25).masked_fill(~kept, -INF)
    logits = torch.cat([scores, sinks[None, :, None, None].expand(1, 2, LENGTH, 1)], -1)
    out, lse = reference.attention(of.pattern, q, k, v, sinks=sinks)
    assert are_same(out, torch.softmax(logits, -1)[..., :-1] @ v)
    assert are_same(lse, torch.logsumexp(logits, -1))


@pytest.mark.parametrize("sink", [NAN, INF, -INF])
@pytest.mark.parametrize(
    ("path", "call"),
    [("kernels", varlen), ("compiled", attention), ("torch", attention), ("compiled", varlen)],
    indirect=["path"],
)
def test_gradients(call: Attend, sink: float, path: str) -> None:
    """Of the head itself NaN in all that has a gradient through the softmax, and nothing where there is no sink; those
    of the other head as they are without it."""
    of = held(TEXT)
    grads = []
    for sinks in (torch.tensor([0.25, sink]), torch.tensor([0.25, -INF])):
        leaves = [x.requires_grad_() for x in (*drawn(of), sinks)]
        out, lse = call(of, *leaves)
        grads.append(torch.autograd.grad((out * 0.5).sum() + lse[lse.isfinite()].sum(), leaves))
    for x, y in zip(*grads, strict=True):
        one, other = (x[0, 0], y[0, 0]) if x.dim() == 4 else (x[0], y[0])
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6) and one.isfinite().all()
    (dq, dk, dv, dsinks), none = grads
    if sink == -INF:
        assert all(torch.equal(x, y) for x, y in zip(*grads, strict=True)) and none[3][1] == 0
    else:
        assert dq[0, 1].isnan().all() and dk[0, 1].isnan().all() and dsinks[1].isnan()
        assert sink == INF or dv[0, 1].isnan().all()  # of +inf every weight may be 0


@pytest.mark.parametrize("sink", [NAN, INF, -INF])
def test_the_cache(sink: float) -> None:
    """Token by token, from the second half on; of two entries one has nothing new, and its output is 0."""
    of = held(TEXT)
    sinks = torch.tensor([0.5, sink])
    inputs = drawn(of)
    true, _ = reference.attention(of.pattern, *inputs, sinks=sinks)
    cache, outs, counts = of.package.KVCache(2), [], [LENGTH - 3, 1, 2]
    for part in zip(*(x.expand(2, -1, -1, -1).split(counts, 2) for x in inputs), strict=True):
        new = torch.tensor([part[0].shape[2], 0])
        outs.append(cache.step(*part, sinks=sinks, lengths=new))
    out = torch.cat(outs, 2)
    assert are_same(out[:1], true) and (out[1] == 0).all()
