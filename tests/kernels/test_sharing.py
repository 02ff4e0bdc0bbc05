"""Query heads of a KV head that load near keys together, and far ones class by class: like dense attention in fp64, in
any order of arrival the same bits, and each near key is loaded once."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.kernels.conftest import Order
from tests.kernels.held import GROUPS, HEAD, TOLERANCE, check_forward, check_lse, check_out, held, off, quick, tensors
from tests.kernels.test_merging import are_equal, attention, shuffled
from tests.kernels.test_serving import Batch, check, check_decode, paged

triton = pytest.importorskip("triton")
tl = triton.language

pytestmark = [pytest.mark.interpret, pytest.mark.usefixtures("poisoned")]

SETS = HEAD.replace("heads: 2\nkv_heads: 1", "heads: 6\nkv_heads: 2")
TEXTS = {
    "strided": GROUPS + "shards: [{heads: all, local: 3, stride: 4, offset: h}]",
    "some alike": SETS + "shards: [{heads: [0, 2], local: 2}, {heads: 1, dense: true}, {heads: rest, local: 1}]",
    "tokens": "tokens",
    "dense": "some_dense",
    "chunks": "chunks_tokens",
    "values": "values",
    "table": "drawn",
    "large blocks": HEAD.replace("block: 16", "block: 64") + "shards: [{heads: all, local: 1, stride: 3, offset: h}]",
}
NEAR = {"strided": 3, "some alike": 2, "values": 1, "chunks": 1, "table": 1}


@pytest.mark.parametrize("name", quick(TEXTS, "strided", "some alike", "chunks", "table"))
def test_any_order_of_arrival(name: str, in_order: Callable[[Order], None]) -> None:
    """Among the requests one of few keys, all of them near."""
    of = held(TEXTS[name])
    assert NEAR.get(name, 1) == of.part("launch.sharing").near((0, 0, of.pattern.heads))
    batch = paged(of, [(1, 300), (1, 70)] if name == "large blocks" else [(1, 90), (1, 5)])
    in_order(shuffled(1))
    first = attention(of, batch, (2, 2))
    check(of, batch, *first)
    in_order(shuffled(2))
    assert are_equal(attention(of, batch, (2, 2)), first)


def test_two_launches() -> None:
    """The same parts, merged by another launch."""
    of = held(TEXTS["strided"])
    batch = paged(of, [(1, 90), (0, 20)])
    found, wanted = (attention(of, batch, (2, 2), launches=n) for n in (2, 1))
    check(of, batch, *found)
    assert off(found[0], wanted[0]) <= TOLERANCE[torch.float32]
    assert torch.allclose(found[1], wanted[1], atol=1e-6)


@pytest.mark.parametrize("launches", [1, 2])
def test_queries_of_no_request_and_requests_without_keys(launches: int, in_order: Callable[[Order], None]) -> None:
    """The first two queries and the last are of no request; one has no keys, and its query keeps nothing."""
    of = held("strided")
    batch = paged(of, [(3, 3), (1, 40), (1, 1)])
    starts, lengths = torch.tensor([2, 3, 4]).int(), torch.tensor([0, 40]).int()
    place = batch.k_cache, batch.v_cache, batch.block_table[[0, 1]].contiguous(), lengths, starts
    how = {"layer": 0, "scale": 0.25, "head_offset": 0, "max_q_len": 1, "splits": (2, 1), "launches": launches}
    in_order(shuffled(2))
    out, lse = of.part("launch.forward").forward_paged(batch.q, *place, **how)
    assert (out[[0, 1, 2, 4]] == 0).all() and lse[:, [0, 1, 2, 4]].isneginf().all()
    check(of, Batch(batch.requests[1:2], *place[:3]), out[3:4], lse[:, 3:4])


@pytest.mark.parametrize("queries", [2, pytest.param(5, marks=pytest.mark.slow), 8])
def test_several_queries(queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to sixteen rows of a KV head, which may straddle two blocks."""
    of, chosen = held("strided"), list[object]()
    module = of.part("launch.forward")
    splits_of = module.splits_of
    monkeypatch.setattr(module, "splits_of", lambda *given: chosen.append(splits_of(*given)) or chosen[-1])
    check_decode(of, paged(of, [(queries, 97), (queries, queries)]))
    assert chosen == [(1, 1)]


def test_a_cache_that_is_one_piece() -> None:
    """`attention` from a position on, over keys that begin later, near ones among them or not; and packed sequences."""
    of = held("strided")
    module = of.part("launch.forward")
    check_forward(of, tensors(of.pattern, 2, 70, batch=2))
    q, k, v = inputs = tensors(of.pattern, 1, 92)
    how = {"layer": 0, "scale": 0.25, "head_offset": 0, "q_start": 91, "splits": (2, 2)}
    ranges = [(k[:, :, part], v[:, :, part], part.start) for part in (slice(0, 32), slice(32, 80), slice(80, 92))]
    parts = [module.forward(q, *some, kv_start=start, **how) for *some, start in ranges]
    true, true_lse = reference.attention(of.pattern, *inputs)
    check_out(of.package.combine(*zip(*parts, strict=True))[0], true, true_lse)
    q, k, v = (x[0].transpose(0, 1).contiguous() for x in tensors(of.pattern, 3, 90))
    starts = torch.tensor([0, 2, 2, 3]).int(), torch.tensor([0, 50, 70, 90]).int()
    out, lse = of.package.attention_varlen(q, k, v, *starts, 2, 50, return_lse=True)
    for rows, keys in ((slice(0, 2), slice(0, 50)), (slice(2, 3), slice(70, 90))):
        one = [x[part].transpose(0, 1)[None] for x, part in ((q, rows), (k, keys), (v, keys))]
        true, true_lse = reference.attention(of.pattern, *one)
        check_out(out[rows].transpose(0, 1)[None], true, true_lse)
        check_lse(lse[None, :, rows], true_lse)


@pytest.mark.parametrize("heads", [range(1, 5), range(3, 6)])
def test_a_part_of_the_heads(heads: range) -> None:
    """As tensor parallelism leaves it: two and two heads of the KV heads, and all of the second, which are alike."""
    of = held(TEXTS["some alike"])
    present = 0, heads.start, len(heads)
    assert of.part("launch.sharing").near(present) == (2 if heads.start == 1 else 0)
    check_forward(of, tensors(of.pattern, 1, 70, heads=heads), head_offset=heads.start)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Callable[[Tensor], Callable[[], int]]:
    """Counts the numbers that programs load from a tensor from now on."""
    from triton.runtime.interpreter import interpreter_builder as builder

    own = builder.create_masked_load

    def count(x: Tensor) -> Callable[[], int]:
        first, found = x.untyped_storage().data_ptr(), [0]
        stop = first + x.untyped_storage().nbytes()

        def load(pointers, mask, *given):  # type: ignore[no-untyped-def]
            found[0] += int(((pointers.data >= first) & (pointers.data < stop) & mask.data).sum())
            return own(pointers, mask, *given)

        monkeypatch.setattr(builder, "create_masked_load", load)
        return lambda: found[0]

    return count


@pytest.mark.parametrize("queries", [1, 2])
def test_a_key_in_common_is_loaded_once(queries: int, loads: Callable[[Tensor], Callable[[], int]]) -> None:
    """Keys of the union of all heads of a KV head, against those of each: far columns of two heads are never the same.
    The two queries straddle no block, so keys that a tile loads are those that its last query keeps."""
    of = held(TEXTS["strided"])
    batch = paged(of, [(queries, 150)])
    kept = reference.dense_mask(of.pattern, 0, 1, 150)[:, 0].view(of.pattern.kv_heads, -1, 150)
    each, union = int(kept.sum()), int(kept.any(1).sum())
    assert union < 0.75 * each
    for splits, wanted in (((2, 2), union), (2, each), (None, union)):
        loaded = loads(batch.k_cache)
        attention(of, batch, splits, launches=None)
        assert loaded() == wanted * of.pattern.head_dim


@triton.jit
def all_keys(shares, t_last, kv_first, kv_start, kv_stop):
    """A fault: each program has all keys."""
    return kv_first, kv_start, kv_stop


def test_keys_that_are_counted_twice_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    of = held("strided")
    batch = paged(of, [(1, 70)])
    monkeypatch.setattr(of.part("kernels.forward"), "own_keys", all_keys)
    with pytest.raises(AssertionError):
        check(of, batch, *attention(of, batch, (1, 1)))


def test_columns_that_not_all_keep_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a column more is said to be near."""
    of = held("strided")
    batch = paged(of, [(1, 70)])
    with monkeypatch.context() as patched:
        patched.setattr(of.part("launch.sharing"), "near", lambda heads: 5)
        with pytest.raises(AssertionError):
            check(of, batch, *attention(of, batch, (1, 5)))  # tables are kept: no other test has these numbers
    check(of, batch, *attention(of, batch, (1, 1)))


def test_heads_that_share_nothing() -> None:
    """Windows of less than a block, strides alone, patterns that are not causal; who asks for sharing is told."""
    both_ways = HEAD + "causal: false\nshards: [{heads: all, local: {before: 2, after: 2}, stride: 3, offset: h}]"
    for text in ("bands", "starved", both_ways):
        of = held(text)
        heads = 0, 0, of.pattern.heads
        assert of.part("launch.sharing").near(heads) == 0
        assert isinstance(of.part("launch.parts").splits_of(heads, 1, 1, 1000, torch.device("cpu")), int)
    batch = paged(of, [(1, 40)])
    with pytest.raises(ValueError, match="cannot share"):
        attention(of, batch, (1, 1))


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What shares out keys, for `strided` on a GPU of 132 processors."""
    module = held(TEXTS["strided"]).part("launch.parts")
    monkeypatch.setattr(module, "processors", lambda device: 132)
    monkeypatch.setattr(module, "arch", lambda device: "sm_90")
    return module


def test_when_heads_share(parts: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that saves an eighth of the loads: of four heads, three near columns for one of the far ones in four."""
    heads, device = (0, 0, 4), torch.device("cpu")
    sharing = held(TEXTS["strided"]).part("launch.sharing")
    assert sharing.saved(heads, 4) > 0.4 and sharing.saved(heads, 400) < 0.02

    def splits(count: int, q_len: int, kv_len: int) -> object:
        return parts.splits_of(heads, count, q_len, kv_len, device)

    assert splits(1, 1, 400) == (2, 1) and splits(64, 1, 400) == (1, 1)
    assert splits(1, 1, 800) == 4
    assert splits(1, 8, 400) == (2, 1) and isinstance(splits(1, 9, 400), int)  # 16 rows, and more than a tile has
    with monkeypatch.context() as patched:
        patched.setattr(parts.configs, "MOST_MERGED", 3 * 2 * 16 - 1)
        assert splits(1, 1, 400) == 3
    with monkeypatch.context() as patched:
        patched.setattr(parts, "arch", lambda device: "gfx942")
        assert splits(1, 1, 400) == 3  # a second launch would merge
    with monkeypatch.context() as patched:
        patched.setattr(parts.configs, "LEAST_SAVED", 2)
        assert splits(1, 1, 400) == 3


def test_programs_of_far_and_of_near_keys(parts: ModuleType) -> None:
    """As many as there is room for in a merge, and none has more keys than the longest of as many for all keys."""
    shared, whole = parts.configs.shared_splits, parts.configs.splits
    for requests in (1, 2, 5, 40, 300):
        for far in (0, 64, 1000, 8192, 1 << 20):
            for near in (64, 512, 4096, 65536):
                splits = shared(132, (32 * requests, 8 * requests), (far, near))
                assert all(n >= 1 for n in splits) and sum(splits) <= parts.configs.MOST_SPLITS
                before = -(-(far + near) // 64) / whole(132, 32 * requests, far + near)
                longest = max(-(-n // 64) / m for n, m in zip((far, near), splits, strict=True))
                assert longest <= max(before, 1) + 1
