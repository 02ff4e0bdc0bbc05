"""dK and dV for Hopper of patterns that are tables, against the reference: emulated, with the launcher's arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.gluon import hopper, test_tables
from tests.gluon.test_backward import ERROR, NAMES, parts_of, sums_of
from tests.gluon.test_backward_packed import check_packed
from tests.gluon.test_forward import GROUPS, HEAD, dense
from tests.kernels.held import Held, gradients, held, off, placed, quick, tensors, weights

RULES = test_tables.RULES | {
    "grouped": GROUPS + "shards: [{heads: 0, local: 21 tokens, random: {blocks: 1, seed: 3}, sink: 5 tokens}, "
    "{heads: rest, local: 1, random: {blocks: 2, seed: h}}]",
    "chunks": HEAD + "shards: [{heads: 0, chunk: 2, stride: 5, offset: 1}, {heads: 1, chunk: 4, random: {blocks: 1}}]",
}
VARIANTS = [(name, block) for name in RULES for block in (16, 32, 64, 128)]
CHOSEN = [("grouped", 64), ("masked", 16), ("tokens", 64), ("both_ways", 32)]


@cache
def made(name: str, block: int) -> tuple[Held, Any, tuple[Any, Any]]:
    """A pattern's package, its launcher and its kernels on the emulated language."""
    of = held(RULES[name].replace("block: 64", f"block: {block}"))
    assert of.part("pattern").FORM == "table"
    launcher = of.part("launch.hopper_backward")
    return of, launcher, tuple(hopper.kernel_of(launcher, name=name) for name in NAMES)  # type: ignore[return-value]


def forward(name: str, block: int) -> tuple[Held, Any, Any]:
    """The same package, and of the forward its launcher and its kernel."""
    of, _, _ = made(name, block)
    launcher = of.part("launch.hopper")
    return of, launcher, hopper.kernel_of(launcher)


def differentiate(
    launcher: Any, kernel: Any, inputs: Sequence[Tensor], sums: Any, starts: tuple[int, int], **more: Any
) -> tuple[Tensor, Tensor]:
    """dk and dv of the emulated kernel, from memory full of NaN; inputs: q, k, v, dout."""
    q, k = inputs[:2]
    grads = [placed(torch.full(x.shape, float("nan"))) for x in inputs[1:3]]
    requests = launcher.Requests(q.shape[0], q.shape[2], k.shape[2], *starts)
    with (
        hopper.launched((None, kernel), launcher, lambda x: all(x is not grad for grad in grads), **more) as found,
        hopper.adding_quickly(launcher),
    ):
        launcher.fill_dkdv(hopper.told(launcher, inputs, sums, requests), *grads)
    assert found == [kernel]
    return grads[0], grads[1]


def compare(launcher: Any, kernel: Any, inputs: Sequence[Tensor], attend: Any, starts: Any, **more: Any) -> None:
    """The emulated gradients against those of `attend` in fp64, through output and LSE."""
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])
    dout = placed(dout)
    wide = [x.double() for x in inputs]
    sums = sums_of(*attend(*wide), dout, dlse)
    found = differentiate(launcher, kernel, (*inputs, dout), sums, starts, **more)
    true = gradients(attend, wide, dout, dlse)[1:]
    errors = [off(x, y) for x, y in zip(found, true, strict=True)]
    assert max(errors) < ERROR, errors
    for x, y in zip(found, true, strict=True):
        assert (x[y.abs().sum(-1) == 0] == 0).all()  # keys that nobody keeps


@pytest.mark.parametrize("variant", quick(VARIANTS, *CHOSEN), ids=lambda v: f"{v[0]}-{v[1]}")
def test_tables(variant: tuple[str, int], short_items: Any) -> None:
    of, launcher, (_, kernel) = made(*variant)
    short_items(launcher)
    for batch, q_len, kv_len, seed in ((1, 500, 500, 0), (2, 129, 129, 1), (1, 70, 420, 2)):
        inputs = tensors(of.pattern, q_len, kv_len, batch=batch)

        def attend(*inputs: Tensor) -> Any:
            return reference.attention(of.pattern, *inputs)

        compare(launcher, kernel, inputs, attend, (kv_len - q_len, 0), seed=seed)


@pytest.mark.parametrize("name", ["drawn", "both_ways"])
def test_queries_and_keys_stand_anywhere(name: str, short_items: Any) -> None:
    """A part of the keys, from a block on; queries before, among and behind them."""
    of, launcher, (_, kernel) = made(name, 64)
    short_items(launcher)
    for own, attend, starts in parts_of(of):
        compare(launcher, kernel, own, attend, starts, seed=starts[0])


@pytest.mark.interpret
@pytest.mark.parametrize("counted", [(True, True), (True, False), (False, True)], ids=["both", "dq", "dkdv"])
def test_the_whole_pass(counted: tuple[bool, bool], short_items: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernels before and after it, which Triton's interpreter runs: also the plain one for dQ, or for dK and
    dV, where the table of that is too large."""
    of, launcher, kernels = made("grouped", 64)
    short_items(launcher)
    launch = of.part("launch.backward")
    monkeypatch.setattr(launcher, "takes", lambda *_given: True)
    monkeypatch.setattr(launcher.hopper, "MOST_COLUMNS", 999 if counted[0] else 1)
    monkeypatch.setattr(launcher.slot_lists, "MOST_NUMBERS", 1 << 31 if counted[1] else 1)
    inputs = tensors(of.pattern, 300)
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])

    def attend(*given: Tensor) -> Any:
        return reference.attention(of.pattern, *given)

    out, lse = (x.float() for x in attend(*inputs))
    options: dict[str, Any] = {"layer": 0, "scale": of.pattern.head_dim**-0.5, "head_offset": 0}
    with hopper.launched(kernels, launcher, lambda _sums: False) as found:
        grads = launch.backward(*inputs, out, lse, dout, dlse, **options, q_start=0, kv_start=0)
    assert found == [kernel for kernel, is_taken in zip(kernels, counted, strict=True) if is_taken]
    true = gradients(attend, [x.double() for x in inputs], dout, dlse)
    assert max(off(x, y) for x, y in zip(grads, true, strict=True)) < ERROR


@pytest.mark.parametrize("variant", quick(VARIANTS, ("drawn", 64), ("bands", 16)), ids=lambda v: f"{v[0]}-{v[1]}")
def test_packed(variant: tuple[str, int]) -> None:
    check_packed(*made(*variant))


@pytest.mark.parametrize("name", ["both_ways", "grouped"])
def test_queries_before_the_first_key(name: str, short_items: Any) -> None:
    """Where there are more queries than keys the first rows have numbers below 0: of packed sequences, and of whole
    ones, whose lists are not split here."""
    of, launcher, kernels = made(name, 32)
    check_packed(of, launcher, kernels, lengths=(([200, 70, 130], [90, 130, 1]),))
    short_items(launcher, most_slots=0)
    inputs = tensors(of.pattern, 200, 90)

    def attend(*inputs: Tensor) -> Any:
        return reference.attention(of.pattern, *inputs)

    compare(launcher, kernels[1], inputs, attend, (-110, 0))


def test_results_repeat_and_long_lists_are_split(short_items: Any) -> None:
    """Whoever takes which item, and in which order copies land, the numbers are the same to the bit."""
    of, launcher, (_, kernel) = made("grouped", 16)
    short_items(launcher)
    inputs = tensors(of.pattern, 330)
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])
    sums = sums_of(*reference.attention(of.pattern, *inputs), dout, dlse)
    work, _ = launcher.work_of(inputs[0], launcher.Requests(1, 330, 330, 0, 0), (0, 0, of.pattern.heads))
    assert int(work.launches[0][0][:, 8].max()) > 1  # parts of an item
    found = [
        differentiate(launcher, kernel, (*inputs, dout), sums, (0, 0), seed=seed, programs=programs)
        for seed, programs in ((0, 1), (1, 7))
    ]
    assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))


def compare_some(of: Held, launcher: Any, kernel: Any) -> None:
    """Queries from the middle of a slot on, keys from a block on."""
    q, k, v = tensors(of.pattern, 460)
    mask = reference.dense_mask(of.pattern, 0, 460)[:, 150:460, 128:]

    def attend(*inputs: Tensor) -> Any:
        return dense(mask, *inputs)

    compare(launcher, kernel, (q[:, :, 150:], k[:, :, 128:], v[:, :, 128:]), attend, (150, 128))


# Changes to the kernels' text that break what is read of a table: each must show in the numbers.
BROKEN = {
    "words of the other consumer": (
        "row_lists",
        "p_word += noted(notes, LISTED)",
        "p_word += noted(notes, LISTED) * (2 - 2 * w)",
    ),
    "the list of another tile": ("row_lists", "noted(notes, KV_START)) // (2 * ROWS)", "0) // (2 * ROWS)"),
    "far slots among the edge ones": ("row_lists", "(n_edge, n_all - n_edge, n_edge - n_all)", "(0, n_all, 0)"),
    "a slot's rows elsewhere": ("row_lists", "place_of(n, all_noted(notes, PLACES, like))) * ROWS", "0) * ROWS"),
    "a rule of tokens for blocks too": ("row_masks", "keep | kept_blocks(kept, s_layout)", "keep"),
    "blocks for a rule of tokens": ("row_lists", "is_exact | (kept & EXACT)", "is_exact"),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_what_is_read_of_a_table_is_used(mistake: str) -> None:
    of, launcher, (_, kernel) = made("dense" if "far" in mistake else "tokens", 16)
    if mistake == next(iter(BROKEN)):
        compare_some(of, launcher, kernel)
    broken = hopper.kernel_of(launcher, name=NAMES[1], changed=BROKEN[mistake])
    with pytest.raises(AssertionError):
        compare_some(of, launcher, broken)


@pytest.mark.parametrize("mistake", ["a bit more", "a bit less", "another slot", "a part twice"])
def test_one_wrong_number_is_found(mistake: str, short_items: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the lists, or of the items: then one part of a list is added twice in the place of another."""
    of, launcher, (_, kernel) = made("drawn", 16)
    short_items(launcher)
    make = launcher.work_of

    def wrong(*given: Any) -> Any:
        work, (pattern, lists) = make(*given)
        [(table, *about)] = work.launches
        lists, table = lists.clone(), table.clone()
        start, n_edge, count = pattern[0, :3].tolist()  # of the first keys of head 0
        word = start + count + n_edge // 2
        assert n_edge > 1 and lists[word] not in (0, 0xFFFF)
        if mistake == "a part twice":
            table[(table[:, 8] > 1) & (table[:, 7] == 1), 7] = 0
        elif mistake == "another slot":
            lists[start + n_edge - 1] += 1
        else:
            lists[word] = lists[word] | lists[word] + 1 if "more" in mistake else lists[word] & lists[word] - 1
        return replace(work, launches=((table, *about),)), (pattern, lists)

    monkeypatch.setattr(launcher, "work_of", wrong)
    inputs = tensors(of.pattern, 384)

    def attend(*inputs: Tensor) -> Any:
        return reference.attention(of.pattern, *inputs)

    with pytest.raises(AssertionError):
        compare(launcher, kernel, inputs, attend, (0, 0))
