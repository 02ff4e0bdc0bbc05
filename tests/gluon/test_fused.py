"""The fused Hopper backward against the reference: its source on numpy, with the launcher's own arguments."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.gluon import fused, hopper, test_backward, test_backward_tables, turns
from tests.gluon.machine import Fault
from tests.gluon.test_backward import check, parts_of, sums_of
from tests.kernels.held import Held, gradients, never_read, placed, quick, tensors, weights

pytestmark = pytest.mark.usefixtures("poisoned")
RULES = {"closed": test_backward.RULES, "table": test_backward_tables.RULES}
VARIANTS = [
    (form, name, block, dim)
    for form, rules in RULES.items()
    for name in rules
    for block in (16, 64)
    for dim in (64, 128)
]
VARIANTS += [
    ("closed", name, block, 64) for name in ("strided", "several", "tokens", "both_ways") for block in (32, 128)
]
CHOSEN = [
    ("closed", "strided", 64, 128),
    ("closed", "tokens", 16, 64),
    ("closed", "wide", 16, 64),
    ("closed", "several", 128, 64),
    ("closed", "both_ways", 64, 64),
    ("table", "grouped", 64, 64),
    ("table", "masked", 16, 64),
]


def made(form: str, name: str, block: int, dim: int = 64) -> tuple[Held, Any, tuple[Any, ...]]:
    return fused.made(
        RULES[form][name].replace("block: 64", f"block: {block}").replace("head_dim: 64", f"head_dim: {dim}")
    )


def compare(launcher: Any, kernels: Any, inputs: Any, attend: Any, starts: Any, clean: Any = None, **more: Any) -> None:
    """The emulated gradients against those of `attend` in fp64, through output and LSE. `clean`: the inputs that it
    takes, where others hold what nobody reads."""
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])
    dout = placed(dout)
    wide = [x.double() for x in clean or inputs]
    sums = sums_of(*attend(*wide), dout, dlse)
    found = fused.differentiate(launcher, kernels, (*inputs, dout), sums, starts, **more)
    check(found, gradients(attend, wide, dout, dlse))


def attention(of: Held) -> Any:
    return lambda *inputs: reference.attention(of.pattern, *inputs)


@pytest.mark.parametrize("variant", quick(VARIANTS, *CHOSEN), ids=lambda v: "-".join(map(str, v)))
def test_fused(variant: tuple[str, str, int, int], cut_items: Any) -> None:
    of, launcher, kernels = made(*variant)
    cut_items(launcher)
    for batch, q_len, kv_len, seed in ((1, 420, 420, 0), (2, 129, 129, 1), (1, 70, 300, 2)):
        inputs = tensors(of.pattern, q_len, kv_len, batch=batch)
        compare(launcher, kernels, inputs, attention(of), (kv_len - q_len, 0), seed=seed)


@pytest.mark.parametrize("name", ["strided", pytest.param("both_ways", marks=pytest.mark.slow)])
def test_queries_and_keys_stand_anywhere(name: str) -> None:
    """A part of the keys, from a block on; queries before, among and behind them."""
    of, launcher, kernels = made("closed", name, 64)
    for own, attend, starts in parts_of(of):
        compare(launcher, kernels, own, attend, starts, seed=starts[0])


@pytest.mark.parametrize("block", [16, 64])
def test_what_no_query_keeps_may_be_anything(block: int) -> None:
    """Keys and values that nobody reads are NaN, also beside others of a tile: zeros are multiplied in their place."""
    of, launcher, kernels = made("closed", "tokens", block)
    compare_unread(of, launcher, kernels)


def compare_unread(of: Held, launcher: Any, kernels: Any, **more: Any) -> None:
    """Likewise where a few queries read few of the keys, and the others are NaN."""
    inputs = tensors(of.pattern, 70, 420)
    clean = [x.clone() for x in inputs]
    never_read(of, inputs)
    assert all(x.isnan().any() for x in inputs[1:])
    compare(launcher, kernels, inputs, attention(of), (350, 0), clean, **more)


def test_results_repeat(cut_items: Any) -> None:
    """Whoever takes which item, and in which order copies land, the numbers are the same to the bit."""
    of, launcher, kernels = made("closed", "mixed", 64)
    cut_items(launcher)
    inputs = tensors(of.pattern, 330)
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])
    sums = sums_of(*attention(of)(*inputs), dout, dlse)
    work = launcher.work_of(inputs[0], launcher.Requests(1, 330, 330), (0, 0, of.pattern.heads))
    assert work.parts.slots and int(work.adds.max()) > 2  # items are cut, and several add to a slot
    found = [
        fused.differentiate(launcher, kernels, (*inputs, dout), sums, (0, 0), seed=seed, programs=programs)
        for seed, programs in ((0, 1), (1, 4), (2, 7))
    ]
    assert all(torch.equal(x, y) for other in found[1:] for x, y in zip(found[0], other, strict=True))


def test_ranks_are_turns(cut_items: Any) -> None:
    """The items of a table, walked one by one: a rank is how many before have added to the slot, and the kernel leaves
    as many in its counts."""
    of, launcher, kernels = made("table", "grouped", 64)
    cut_items(launcher)
    inputs = tensors(of.pattern, 400, batch=2)
    requests, heads = launcher.Requests(2, 400, 400), (0, 0, of.pattern.heads)
    work = launcher.work_of(inputs[0], requests, heads)
    turns = torch.zeros_like(work.adds)
    for item in work.items.tolist():
        slots = 0
        for head, _, listed, ranks, count in work.members[item[2] : item[2] + item[1]].tolist():
            rows = work.lists[listed : listed + count, 0]
            assert (rows.diff() < 0).all()  # the last first
            assert torch.equal(work.ranks[ranks : ranks + count].long(), turns[head, rows])
            turns[head, rows] += 1
            slots += count
        assert slots == item[7]
    assert torch.equal(turns, work.adds) and int(turns.max()) > 2
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])
    grads = [torch.full(x.shape, float("nan")) for x in inputs]
    sums = sums_of(*attention(of)(*inputs), dout, dlse)
    with fused.launched(kernels, launcher) as found:
        launcher.fill(hopper.told(launcher, (*inputs, dout), sums, requests), *grads)
    counts = found[0]["added"].view(2, *turns.shape)
    assert all(torch.equal(own, turns) for own in counts)


LONG = "pattern: 1\nname: emulated\nheads: {heads}\nkv_heads: {kv_heads}\nhead_dim: 128\nblock: 64\npromises: {{}}\n"
LONG += "shards: [{{heads: all, local: 8, stride: 16, offset: {offset}}}]"


@pytest.mark.parametrize(("heads", "kv_heads", "offset", "most"), [(16, 16, "h", 1.5), (32, 8, "g", 2.0)])
def test_programs_hardly_wait_for_their_turns(heads: int, kv_heads: int, offset: str, most: float) -> None:
    """The order of items, simulated on 132 processors: nobody waits for ever, and few for long. In another order, or
    where items are cut at other rows, they do; and where items of several heads are cut at rows."""
    launcher = fused.held(LONG.format(heads=heads, kv_heads=kv_heads, offset=offset)).part("launch.hopper_fused")
    requests, tokens = launcher.Requests(1, 16384, 16384), torch.device("cpu")
    work = launcher.fused_items.work_of(requests, (0, 0, heads), 132, tokens)
    busy, misses = turns.simulated(work, 1, 132, 800)
    assert busy > 0.95 and misses < most, (busy, misses)


@pytest.mark.interpret
def test_the_whole_pass(cut_items: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernels before and after it, which Triton's interpreter runs, where it is asked for."""
    of, launcher, kernels = made("closed", "strided", 64)
    cut_items(launcher)
    launch = importlib.import_module(f"{of.package.__name__}.launch.backward")
    backward = of.part("launch.hopper_backward")
    monkeypatch.setattr(backward, "takes", lambda *_given: True)
    monkeypatch.setenv("PATTERNCC_KERNELS", "fused")
    inputs = tensors(of.pattern, 300, batch=2)
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])
    out, lse = (x.float() for x in attention(of)(*inputs))
    options: dict[str, Any] = {"layer": 0, "scale": of.pattern.head_dim**-0.5, "head_offset": 0}
    with fused.launched(kernels, launcher) as found:
        grads = launch.backward(*inputs, out, lse, dout, dlse, **options, q_start=0, kv_start=0)
    assert len(found) == 1
    check(grads, gradients(attention(of), [x.double() for x in inputs], dout, dlse))


def test_it_is_taken_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By PATTERNCC_KERNELS=fused alone, not for packed sequences, and where the other kernels run too; where lists are
    too long those take its place."""
    of, launcher, _ = made("closed", "strided", 64)
    whole = launcher.Requests(1, 300, 300)
    starts = torch.tensor([0, 300], dtype=torch.int32)
    packed = launcher.Requests(1, 300, 300, q_starts=starts, kv_starts=starts)
    taken = {}
    for family in launcher.hopper.FAMILIES:
        monkeypatch.setenv("PATTERNCC_KERNELS", family)
        taken[family] = launcher.wanted(whole)
        assert not launcher.wanted(packed)
    assert taken == {family: family == "fused" for family in taken}
    backward = of.part("launch.hopper_backward")
    monkeypatch.setattr(backward.hopper, "is_hopper", lambda _device: True)
    q, k = (torch.zeros(1, heads, 300, 64, dtype=torch.bfloat16) for heads in (2, 1))
    sums = torch.zeros(1, 2, 300), torch.zeros(1, 2, 300)
    assert backward.takes(hopper.told(launcher, (q, k, k, q), sums, whole), (q, k, k))  # still fused
    launcher.fused_items.work.cache_clear()
    monkeypatch.setattr(launcher.fused_items, "MOST_ENTRIES", 3)
    assert launcher.work_of(q, whole, (0, 0, 2)) is None


def test_a_ring_is_a_power_of_two(cut_items: Any) -> None:
    of, launcher, kernels = made("closed", "strided", 64)
    inputs = tensors(of.pattern, 200)
    for stages in (2, 8):
        compare(launcher, kernels, inputs, attention(of), (0, 0), STAGES=stages)
    with pytest.raises(Fault, match="static assertion"):
        compare(launcher, kernels, inputs, attention(of), (0, 0), STAGES=3)


def zero(x: Tensor) -> bool:
    return bool((x == 0).all())


def test_rows_that_keep_nothing_have_no_gradient() -> None:
    """Their tiles are never added to, and hold what memory held: dq is 0 there."""
    of, launcher, kernels = made("closed", "starved", 64)
    inputs = tensors(of.pattern, 330)
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])
    sums = sums_of(*attention(of)(*inputs), dout, dlse)
    dq, _, _ = fused.differentiate(launcher, kernels, (*inputs, dout), sums, (0, 0))
    none = attention(of)(*inputs)[1] == float("-inf")
    assert none.any() and zero(dq[none]) and not zero(dq[~none])
