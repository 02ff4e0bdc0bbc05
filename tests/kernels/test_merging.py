"""Several programs that share the keys of a tile, of which the last merges: in any order of arrival, the same bits."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import permutations

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.kernels.conftest import Order
from tests.kernels.held import HEAD, TOLERANCE, Held, check_forward, check_lse, check_out, held, off, tensors
from tests.kernels.test_serving import Batch, check, paged

triton = pytest.importorskip("triton")
tl = triton.language

pytestmark = [pytest.mark.interpret, pytest.mark.usefixtures("poisoned")]

GROUPED = HEAD + "shards: [{heads: all, local: 20 tokens, stride: 4, offset: g}]"
Results = tuple[Tensor, Tensor]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """What launches of `GROUPED` count in: the same memory each time, as when a graph is replayed."""
    module, given = held(GROUPED).part("launch.parts"), list[Tensor]()

    def zeros(device: torch.device, count: int, is_left: bool) -> Tensor:
        assert is_left
        given.extend([] if given else [torch.zeros(count, dtype=torch.int32)])
        assert count <= len(given[0])
        return given[0]

    monkeypatch.setattr(module, "zeros", zeros)
    yield given


def attention(of: Held, batch: Batch, splits: int, launches: int | None = 1, starts: Tensor | None = None) -> Results:
    place = batch.k_cache, batch.v_cache, batch.block_table, batch.seq_lens, batch.starts if starts is None else starts
    how = {"layer": 0, "scale": of.pattern.head_dim**-0.5, "head_offset": 0, "splits": splits, "launches": launches}
    most = max(q.shape[2] for q, _, _ in batch.requests)
    return of.part("launch.forward").forward_paged(batch.q, *place, max_q_len=most, **how)


def arriving(order: tuple[int, ...]) -> Order:
    """The programs that share a tile one after the other, in this order."""
    return lambda usual: sorted(usual, key=lambda program: (*program[1:], order[program[0] % len(order)]))


def shuffled(seed: int) -> Order:
    return lambda usual: random.Random(seed).sample(usual, len(usual))


def are_equal(found: Results, wanted: Results) -> bool:
    return all(torch.equal(x, y) for x, y in zip(found, wanted, strict=True))


def test_all_orders_of_arrival(in_order: Callable[[Order], None], counts: list[Tensor]) -> None:
    """Equal to the bit, to each other and to what a second launch merges; of two heads, one and three keys."""
    of = held(GROUPED)
    batch = paged(of, [(1, 150), (1, 3)])
    wanted = attention(of, batch, 3, launches=2)
    check(of, batch, *wanted)
    assert not counts
    for order in [arriving(each) for each in permutations(range(3))] + [shuffled(seed) for seed in range(3)]:
        in_order(order)
        assert are_equal(attention(of, batch, 3), wanted)
        assert len(counts) == 1 and not counts[0].any()  # 0 again


@pytest.mark.parametrize("name", ["mixed", "several", "values", "starved"])
def test_other_patterns_in_any_order(name: str, in_order: Callable[[Order], None]) -> None:
    """Tables, several classes and KV heads, values of another width, rows that keep nothing; several queries, among
    them none, and more programs than tiles of keys."""
    of = held(name)
    lengths = [(1, 90), (3, 40), (0, 20)]
    batch = paged(of, lengths)
    first = attention(of, batch, 5)
    check(of, batch, *first)
    in_order(shuffled(1))
    assert are_equal(attention(of, batch, 5), first)
    apart = attention(of, batch, 5, launches=2)
    assert off(apart[0], first[0]) <= TOLERANCE[torch.float32]
    assert torch.allclose(apart[1], first[1], atol=1e-6)


def test_queries_of_no_request_and_requests_without_keys(in_order: Callable[[Order], None]) -> None:
    """The first two queries and the last are of no request; the second request has neither queries nor keys."""
    of = held(GROUPED)
    batch = paged(of, [(2, 2), (1, 40), (1, 1)])
    starts, lengths = torch.tensor([2, 2, 3]).int(), torch.tensor([0, 40]).int()
    place = batch.k_cache, batch.v_cache, batch.block_table[[0, 1]].contiguous(), lengths, starts
    how = {"layer": 0, "scale": 0.25, "head_offset": 0, "max_q_len": 1, "splits": 3, "launches": 1}
    results = []
    for seed in range(2):
        in_order(shuffled(seed))
        results.append(of.part("launch.forward").forward_paged(batch.q, *place, **how))
    out, lse = results[0]
    assert are_equal(*results) and (out[[0, 1, 3]] == 0).all() and lse[:, [0, 1, 3]].isneginf().all()
    check(of, Batch(batch.requests[1:2], *place[:3]), out[2:3], lse[:, 2:3])


@pytest.mark.parametrize("name", ["strided", "values", "mixed", "both_ways_tokens"])
def test_few_queries_over_a_cache_that_is_one_piece(
    name: str, in_order: Callable[[Order], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`attention`, from a position on, and packed sequences of which one has no query; longer ones are not split."""
    of, asked = held(name), list[int]()
    monkeypatch.setattr(of.part("launch.configs"), "LEAST_SAVED", 2)  # no heads share near keys
    monkeypatch.setattr(of.part("launch.configs"), "splits", lambda *_: asked.append(3) or 3)
    in_order(shuffled(3))
    check_forward(of, tensors(of.pattern, 2, 70, batch=2))
    q, k, v = inputs = tensors(of.pattern, 1, 92)
    ranges = [(k[:, :, part], v[:, :, part], part.start) for part in (slice(0, 32), slice(32, 92))]
    place = {"return_lse": True, "q_start": 91}
    parts = [of.package.attention(q, *some, kv_start=start, **place) for *some, start in ranges]
    true, true_lse = reference.attention(of.pattern, *inputs)
    check_out(of.package.combine(*zip(*parts, strict=True))[0], true, true_lse)
    assert len(asked) == 3
    q, k, v = (x[0].transpose(0, 1).contiguous() for x in tensors(of.pattern, 3, 90))
    starts = torch.tensor([0, 2, 2, 3]).int(), torch.tensor([0, 50, 70, 90]).int()
    out, lse = of.package.attention_varlen(q, k, v, *starts, 2, 50, return_lse=True)
    for rows, keys in ((slice(0, 2), slice(0, 50)), (slice(2, 3), slice(70, 90))):
        one = [x[part].transpose(0, 1)[None] for x, part in ((q, rows), (k, keys), (v, keys))]
        true, true_lse = reference.attention(of.pattern, *one)
        check_out(out[rows].transpose(0, 1)[None], true, true_lse)
        check_lse(lse[None, :, rows], true_lse)
    assert len(asked) == 4
    check_forward(of, tensors(of.pattern, 20, 30))
    assert len(asked) == 4


@triton.jit
def is_first(p_count, splits):
    """A fault: who comes first merges."""
    return tl.atomic_add(p_count, 1) == 0


@triton.jit
def is_last_once(p_count, splits):
    """A fault: the count stays."""
    return tl.atomic_add(p_count, 1) == splits - 1


def test_parts_that_are_not_there_are_seen(counts: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: merged before all have come."""
    of = held(GROUPED)
    batch = paged(of, [(1, 150)])
    monkeypatch.setattr(of.part("kernels.forward"), "is_last", is_first)
    with pytest.raises(AssertionError):
        check(of, batch, *attention(of, batch, 3))


def test_a_count_that_stays_is_seen(counts: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a replay that finds the counts of the one before merges nothing."""
    of = held(GROUPED)
    batch = paged(of, [(1, 150)])
    monkeypatch.setattr(of.part("kernels.forward"), "is_last", is_last_once)
    check(of, batch, *attention(of, batch, 3))
    with pytest.raises(AssertionError):
        check(of, batch, *attention(of, batch, 3))


@triton.jit
def merging(parts, lses, out, lse, heads, splits):
    merge(parts, lses, 0, splits, out, 16, 32, lse, 1, heads, 0, 0, 1, 1, 2)  # noqa: F821 (set by the test)


def test_a_part_that_kept_nothing_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN in a part whose LSE is -inf adds nothing, nor do parts behind the last one."""
    monkeypatch.setitem(globals(), "merge", held(GROUPED).part("kernels.combine").merge)
    none, nan = -float("inf"), float("nan")
    parts, lses = torch.full((70, 2, 16), nan), torch.full((70, 2), nan)
    lses[:3] = torch.tensor([[0.5, none], [none, none], [none, none]])
    parts[0, 0] = 2.0
    out, lse = torch.empty(2, 16), torch.empty(2)
    merging[(1,)](parts, lses, out, lse, torch.tensor([0, 1]).int(), 3)
    assert torch.equal(out, torch.tensor([[2.0], [0.0]]).expand(2, 16)) and torch.equal(lse, torch.tensor([0.5, none]))


def test_when_one_launch_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the last program has little to merge, and not on AMD's GPUs."""
    of, launched = held(GROUPED), list[str]()
    launch = of.part("launch.kept").Launch.__call__

    def seen(self, kernel, *given):  # type: ignore[no-untyped-def]
        launched.append(kernel.fn.__name__)
        launch(self, kernel, *given)

    monkeypatch.setattr(of.part("launch.kept").Launch, "__call__", seen)
    batch, configs = paged(of, [(1, 40)]), of.part("launch.configs")
    attention(of, batch, 2, launches=None)
    assert launched == ["attn_fwd_held"]
    monkeypatch.setattr(configs, "MOST_MERGED", 2 * 2 * 16 - 1)
    attention(of, batch, 2, launches=None)
    assert launched == ["attn_fwd_held", "attn_fwd_held", "attn_combine_held"]
    assert configs.merges("sm_90", 1) and configs.merges("interpreter", 1) and not configs.merges("gfx942", 1)
    assert configs.MOST_SPLITS == of.part("kernels.combine").MOST_SPLITS.value == configs.splits(10**6, 1, 10**9)
