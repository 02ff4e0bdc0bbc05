"""Packed rows that belong to no sequence, before the first and behind the last: 0, an LSE of -inf and no gradient, on
every path. And more sequences than one launch can have."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.kernels.held import GROUPS, Held, gradients, held, weights

INF = float("inf")
TEXTS = {  # arithmetic with rounds of strides, a table, both directions
    "closed": GROUPS + "shards: [{heads: all, local: 20 tokens, stride: 4, offset: g}]",
    "table": GROUPS + "shards: [{heads: all, local: 21 tokens, random: {blocks: 1, seed: 3}}]",
    "both_ways": GROUPS + "causal: false\nshards: [{heads: all, local: {before: 20 tokens, after: 9 tokens}}]",
}
# Where queries and keys begin and the last ones end; then how many there are in all.
PACKED = {
    "behind": ([0, 20, 37], [0, 20, 40], 75, 61),
    "before": ([9, 9, 41], [3, 20, 41], 41, 41),
    "both": ([5, 38], [17, 50], 90, 90),
    "empty sequences": ([4, 4, 4], [2, 2, 2], 21, 35),
    "no sequence": ([7], [3], 19, 23),
    "one token": ([0, 0, 1], [0, 1, 2], 2, 3),
}


def ints(numbers: list[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int32)


def drawn(of: Held, queries: int, keys: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    make, p = torch.Generator().manual_seed(queries), of.pattern
    shapes = ((queries, p.heads), (keys, p.kv_heads), (keys, p.kv_heads))
    return [torch.randn(*shape, p.head_dim, generator=make).to(dtype) for shape in shapes]


def strays(starts: list[int], total: int) -> Tensor:
    """Which rows belong to no sequence: bool [total]."""
    found = torch.ones(total, dtype=torch.bool)
    found[starts[0] : starts[-1]] = False
    return found


def longest(starts: list[int]) -> int:
    return max((b - a for a, b in pairwise(starts)), default=0)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(
    ("text", "where", "dtype"),
    [("closed", where, torch.float32) for where in PACKED]
    + [("table", "both", torch.float32), ("both_ways", "before", torch.float32), ("closed", "both", torch.float16)],
    ids=str,
)
def test_varlen(text: str, where: str, dtype: torch.dtype) -> None:
    """What stands in such rows, NaN here, changes nothing; all others are as without them."""
    of, (q_starts, k_starts, queries, keys) = held(TEXTS[text]), PACKED[where]
    inputs = drawn(of, queries, keys, dtype)
    gone, gone_keys = strays(q_starts, queries), strays(k_starts, keys)
    for x, lost in zip(inputs, (gone, gone_keys, gone_keys), strict=True):
        x[lost] = float("nan")
    dout, dlse = weights(inputs[0], (of.pattern.heads, queries))
    dout[gone], dlse[:, gone] = float("nan"), float("nan")

    def attend(starts: list[int], keys: list[int], *tensors: Tensor) -> tuple[Tensor, Tensor]:
        most = longest(starts), longest(keys)
        return of.package.attention_varlen(*tensors, ints(starts), ints(keys), *most, return_lse=True)

    out, lse = attend(q_starts, k_starts, *inputs)
    dq, dk, dv = gradients(lambda *x: attend(q_starts, k_starts, *x), inputs, dout, dlse)
    assert (out[gone] == 0).all() and (lse[:, gone] == -INF).all()
    assert (dq[gone] == 0).all() and (dk[gone_keys] == 0).all() and (dv[gone_keys] == 0).all()

    alone = [x[~lost] for x, lost in zip(inputs, (gone, gone_keys, gone_keys), strict=True)]
    own = [start - q_starts[0] for start in q_starts], [start - k_starts[0] for start in k_starts]
    true_out, true_lse = attend(*own, *alone)
    assert torch.equal(out[~gone], true_out) and torch.equal(lse[:, ~gone], true_lse)
    true = gradients(lambda *x: attend(*own, *x), alone, dout[~gone], dlse[:, ~gone])
    for x, lost, y in zip((dq, dk, dv), (gone, gone_keys, gone_keys), true, strict=True):
        assert torch.equal(x[~lost], y)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(
    ("text", "starts", "splits"),
    [
        ("closed", [0, 1, 18], 1),
        ("closed", [2, 3, 3], 3),
        ("closed", [5, 5, 5], 1),
        ("table", [2, 3, 3], 1),
        ("closed", [3], 3),
        ("both_ways", [5, 5, 5], 3),
    ],
    ids=str,
)
def test_paged(text: str, starts: list[int], splits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    of, total, page, requests = held(TEXTS[text]), 23, 16, len(starts) - 1
    use_splits(of, splits, monkeypatch)
    q, k, v = drawn(of, total, 4 * page)
    gone = strays(starts, total)
    q[gone] = float("nan")
    caches = [x.unflatten(0, (4, page)) for x in (k, v)]
    table, lengths = torch.arange(2 * requests, dtype=torch.int32).view(-1, 2), ints([30, 21][:requests])
    most = longest(starts)
    out, lse = of.package.attention_paged(q, *caches, table, lengths, ints(starts), max_q_len=most, return_lse=True)
    assert (out[gone] == 0).all() and (lse[:, gone] == -INF).all()
    own = ints([start - starts[0] for start in starts])
    true, true_lse = of.package.attention_paged(q[~gone], *caches, table, lengths, own, max_q_len=most, return_lse=True)
    assert torch.equal(out[~gone], true) and torch.equal(lse[:, ~gone], true_lse)
    assert out.isfinite().all()


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("shape", [(0, 1), (2, 0)], ids=["no request", "no query"])
def test_decoding_nothing(shape: tuple[int, int]) -> None:
    of = held(TEXTS["closed"])
    cache = torch.zeros(2, 16, of.pattern.kv_heads, of.pattern.head_dim)
    table, lengths = torch.zeros(shape[0], 1, dtype=torch.int32), torch.full(shape[:1], 5, dtype=torch.int32)
    q = torch.zeros(*shape, of.pattern.heads, of.pattern.head_dim)
    out, lse = of.package.decode(q, cache, cache, table, lengths, return_lse=True)
    assert out.shape == q.shape and lse.shape == (shape[0], of.pattern.heads, shape[1])


def use_splits(of: Held, splits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if splits > 1:
        monkeypatch.setattr(of.part("launch.configs"), "splits", lambda *_: splits)


@pytest.fixture
def few_together(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Launches of three requests at most; the numbers of requests that there were."""
    of, counts = held(TEXTS["closed"]), list[int]()
    for part in ("requests", "parts", "forward", "backward"):
        monkeypatch.setattr(of.part(f"launch.{part}"), "MOST_TOGETHER", 3)
    launches = of.part("launch.requests").Requests.launches

    def counted(self, *tensors, **where):  # type: ignore[no-untyped-def]
        for some, parts in launches(self, *tensors, **where):
            counts.append(some.count)
            yield some, parts

    monkeypatch.setattr(of.part("launch.requests").Requests, "launches", counted)
    yield counts
    assert counts.count(3) and max(counts) == 3


@pytest.mark.interpret
@pytest.mark.usefixtures("poisoned")
def test_more_sequences_than_a_launch_has(few_together: list[int]) -> None:
    of, (q_starts, k_starts) = held(TEXTS["closed"]), ([2, 2, 9, 20, 20, 37], [1, 9, 9, 25, 36, 50])
    inputs = drawn(of, 40, 60)
    dout, dlse = weights(inputs[0], (of.pattern.heads, 40))

    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return of.package.attention_varlen(q, k, v, ints(q_starts), ints(k_starts), 17, 16, return_lse=True)

    def alone(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        out, lse = torch.zeros(40, *q.shape[1:]), torch.full((of.pattern.heads, 40), -INF)
        for (a, b), (c, d) in zip(pairwise(q_starts), pairwise(k_starts), strict=True):
            if b > a:
                one = [x.transpose(0, 1)[None] for x in (q[a:b], k[c:d], v[c:d])]
                part, part_lse = of.package.attention(*one, return_lse=True)
                out[a:b], lse[:, a:b] = part[0].transpose(0, 1), part_lse[0]
        return out, lse

    found, found_lse = attend(*inputs)
    grads = gradients(attend, inputs, dout, dlse)
    few_together_counts = list(few_together)
    true, true_lse = alone(*inputs)
    assert torch.equal(found, true) and torch.equal(found_lse, true_lse)
    dlse = dlse.masked_fill(true_lse == -INF, 0.0)
    for x, y in zip(grads, gradients(alone, inputs, dout, dlse), strict=True):
        assert (x - y).norm() <= 2e-6 * y.norm()
    assert few_together_counts.count(3) == few_together_counts.count(2) >= 3


@pytest.mark.interpret
@pytest.mark.usefixtures("poisoned")
def test_a_larger_batch_than_a_launch_has(few_together: list[int]) -> None:
    of, p = held(TEXTS["closed"]), held(TEXTS["closed"]).pattern
    inputs = [torch.randn(5, heads, 33, p.head_dim) for heads in (p.heads, p.kv_heads, p.kv_heads)]
    dout, dlse = weights(inputs[0], (5, p.heads, 33))

    def attend(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return of.package.attention(*tensors, return_lse=True)

    found = *attend(*inputs), *gradients(attend, inputs, dout, dlse)
    for n in range(5):
        one = [x[n : n + 1] for x in inputs]
        true = *attend(*one), *gradients(attend, one, dout[n : n + 1], dlse[n : n + 1])
        assert all(torch.equal(x[n : n + 1], y) for x, y in zip(found, true, strict=True))


@pytest.mark.interpret
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("splits", [1, 2])
def test_more_requests_than_a_launch_has(splits: int, few_together: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    of, p = held(TEXTS["closed"]), held(TEXTS["closed"]).pattern
    use_splits(of, splits, monkeypatch)
    caches = [torch.randn(10, 16, p.kv_heads, p.head_dim) for _ in range(2)]
    table, lengths = torch.randperm(10).int().view(5, 2), ints([3, 31, 17, 1, 20])
    q = torch.randn(5, 1, p.heads, p.head_dim)
    out, lse = of.package.decode(q, *caches, table, lengths, return_lse=True)
    for n in range(5):
        true, true_lse = of.package.decode(q[n : n + 1], *caches, table[n : n + 1], lengths[n : n + 1], return_lse=True)
        assert torch.equal(out[n : n + 1], true) and torch.equal(lse[n : n + 1], true_lse)
