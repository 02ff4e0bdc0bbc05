"""The Hopper forward and dQ of patterns that only tables say, against the reference: their source on numpy."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.gluon import hopper, test_backward, test_forward
from tests.gluon.test_forward import BOTH_WAYS, GROUPS, HEAD, NAMES, attend, check, dense
from tests.gluon.test_packed import check_packed
from tests.kernels.held import Held, gradients, held, never_read, off, placed, quick, tensors, weights

RULES = {
    "drawn": HEAD + "shards: [{heads: all, local: 1, random: {blocks: 2, seed: h}}]",
    "masked": GROUPS + "shards: [{heads: [0, 3], mask: mask.npy}, {heads: 1, mask: mask.npy, sink: 1}, "
    "{heads: rest, mask: mask.npy, local: 29 tokens}]",
    "globals": HEAD + "shards: [{heads: all, local: 1, globals: {rows: [2, 5], columns: [1, 4]}}]",
    "tokens": HEAD + "shards: [{heads: 0, local: 70 tokens, random: {blocks: 1, seed: 3}, sink: 5 tokens}, "
    "{heads: rest, strides: [{every: 2, anchor: query, offset: 1}, {every: 5}]}]",
    "starved": HEAD + "shards: [{heads: all, strides: [{every: 4, anchor: query, offset: 2}], globals: {rows: [3]}}]",
    "bands": HEAD
    + "shards: [{heads: 0, random: {blocks: 1}, strides: [{every: 1, from: 137 tokens, to: 260 tokens}]}, "
    "{heads: 1, chunk: 2, random: {blocks: 1}, local: 21 tokens}]",
    "dense": HEAD + "shards: [{heads: 0, dense: true}, {heads: 1, local: 1, random: {blocks: 3}}]",
    "both_ways": BOTH_WAYS + "shards: [{heads: all, local: {before: 20 tokens, after: 40 tokens}, "
    "globals: {rows: [3]}, random: {blocks: 1, seed: h}}]",
    "both_ways_masked": BOTH_WAYS + "shards: [{heads: all, mask: mask.npy, sink: 3 tokens}]",
}
WIDTHS = test_forward.WIDTHS  # head_dim by block: at 64 a program has three consumers, at 128 two
VARIANTS = [(name, block) for name in RULES for block in WIDTHS]
CHOSEN = [
    ("drawn", 64),
    ("drawn", 16),
    ("masked", 128),
    ("globals", 32),
    ("tokens", 64),
    ("tokens", 16),
    ("starved", 64),
    ("bands", 32),
    ("dense", 128),
    ("both_ways", 64),
    ("both_ways_masked", 16),
]
LENGTHS = ((1, 500, 500, 0), (2, 129, 129, 1), (1, 70, 420, 2))


@cache
def made(name: str, block: int, head_dim: int = 0, plan: str | None = None) -> tuple[Held, Any, Any]:
    """A pattern's package, its launcher and its kernel on the emulated language."""
    text = RULES[name] if plan is None else test_forward.RULES[name]
    text = text.replace("head_dim: 64", f"head_dim: {head_dim or WIDTHS[block]}")
    of = held(text.replace("block: 64", f"block: {block}"), plan)
    launcher = importlib.import_module(f"{of.package.__name__}.launch.hopper")
    assert launcher.IS_TABLE and launcher.IS_WRITTEN_FOR
    return of, launcher, hopper.kernel_of(launcher, name=NAMES[launcher.IS_WIDE])


@pytest.mark.parametrize("variant", quick(VARIANTS, *CHOSEN), ids=lambda v: f"{v[0]}-{v[1]}")
def test_forward_of_tables(variant: tuple[str, int]) -> None:
    of, launcher, kernel = made(*variant)
    for batch, q_len, kv_len, seed in LENGTHS:
        inputs = tensors(of.pattern, q_len, kv_len, batch=batch)
        check(attend(of, launcher, kernel, *inputs, seed=seed), reference.attention(of.pattern, *inputs))


@pytest.mark.parametrize("name", quick(test_forward.RULES, "wide", "several", "tokens", "bands_strided", "both_ways"))
def test_what_arithmetic_says_may_be_a_table(name: str) -> None:
    """All of the language, in blocks of 16: the most columns of a slot, and of rows of blocks in a tile."""
    of, launcher, kernel = made(name, 16, plan="table")
    for batch, q_len, kv_len, seed in LENGTHS[1:]:
        inputs = tensors(of.pattern, q_len, kv_len, batch=batch)
        check(attend(of, launcher, kernel, *inputs, seed=seed), reference.attention(of.pattern, *inputs))


PARTS = ((300, 150, 128, 411), (0, 100, 192, 500), (601, 99, 64, 300))  # from, how many queries; keys from, to


@pytest.mark.parametrize("variant", [("drawn", 64), ("tokens", 16), ("both_ways", 64)], ids=str)
def test_queries_and_keys_stand_anywhere(variant: tuple[str, int]) -> None:
    """A part of the keys, from a block on; queries before, among and behind them. No other keys are read."""
    of, launcher, kernel = made(*variant)
    q, k, v = tensors(of.pattern, 700)
    for q_start, q_len, kv_start, kv_stop in PARTS:
        mask = reference.dense_mask(of.pattern, 0, 700)[:, q_start : q_start + q_len, kv_start:kv_stop]
        own = q[:, :, q_start : q_start + q_len], k[:, :, kv_start:kv_stop], v[:, :, kv_start:kv_stop]
        check(attend(of, launcher, kernel, *own, (q_start, kv_start), seed=q_start), dense(mask, *own))


@pytest.mark.parametrize("block", [16, 64])
def test_blocks_that_nobody_keeps_are_not_read(block: int) -> None:
    of, launcher, kernel = made("starved", block)
    for q_len in (600, 88):
        inputs = tensors(of.pattern, q_len, 600)
        true = reference.attention(of.pattern, *inputs)
        check(attend(of, launcher, kernel, *never_read(of, inputs)), true)


PACKED = [(name, block, page) for name in RULES for block in WIDTHS for page in (0, 16, 48, 64)]
CHOSEN_PACKED = [("drawn", 64, 0), ("masked", 16, 0), ("tokens", 64, 0), ("both_ways", 16, 0), ("drawn", 32, 48)]


@pytest.mark.parametrize("variant", quick(PACKED, *CHOSEN_PACKED), ids=lambda v: f"{v[0]}-{v[1]}-page{v[2]}")
def test_packed_and_paged(variant: tuple[str, int, int]) -> None:
    check_packed(*made(*variant[:2]), variant[2])


@pytest.mark.parametrize("variant", quick(VARIANTS, ("drawn", 64), ("tokens", 16)), ids=lambda v: f"{v[0]}-{v[1]}")
def test_wide_heads(variant: tuple[str, int]) -> None:
    of, launcher, kernel = made(*variant, 256)
    for batch, q_len, kv_len, seed in LENGTHS[1:]:
        inputs = tensors(of.pattern, q_len, kv_len, batch=batch)
        check(attend(of, launcher, kernel, *inputs, seed=seed), reference.attention(of.pattern, *inputs))
    check_packed(of, launcher, kernel, 0)


def differentiate(of: Held, kernel: Any, inputs: Any, attention: Any, starts: tuple[int, int], **order: int) -> None:
    """The emulated dQ against that of `attention` in fp64, through output and LSE."""
    launcher = importlib.import_module(f"{of.package.__name__}.launch.hopper_backward")
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])
    wide = [x.double() for x in inputs]
    sums = test_backward.sums_of(*attention(*wide), dout, dlse)
    dq = placed(torch.full(inputs[0].shape, float("nan")))
    requests = launcher.Requests(inputs[0].shape[0], inputs[0].shape[2], inputs[1].shape[2], *starts)
    hopper.dq(kernel, launcher, (*inputs, placed(dout)), dq, sums, requests, **order)
    error = off(dq, gradients(attention, wide, dout, dlse)[0])
    assert error < test_backward.ERROR, error


@pytest.mark.parametrize("variant", quick(VARIANTS, *CHOSEN[::2]), ids=lambda v: f"{v[0]}-{v[1]}")
def test_dq_of_tables(variant: tuple[str, int]) -> None:
    of, launcher, _ = made(*variant)
    kernel = hopper.kernel_of(launcher, name=test_backward.NAMES[0])
    for batch, q_len, kv_len, seed in LENGTHS:
        inputs = tensors(of.pattern, q_len, kv_len, batch=batch)

        def attention(*inputs: Tensor) -> Any:
            return reference.attention(of.pattern, *inputs)

        differentiate(of, kernel, inputs, attention, (kv_len - q_len, 0), seed=seed)


@pytest.mark.parametrize("variant", [("drawn", 32), ("both_ways", 64)], ids=str)
def test_dq_of_parts(variant: tuple[str, int]) -> None:
    of, launcher, _ = made(*variant)
    kernel = hopper.kernel_of(launcher, name=test_backward.NAMES[0])
    q, k, v = tensors(of.pattern, 700)
    for q_start, q_len, kv_start, kv_stop in PARTS:
        mask = reference.dense_mask(of.pattern, 0, 700)[:, q_start : q_start + q_len, kv_start:kv_stop]
        own = q[:, :, q_start : q_start + q_len], k[:, :, kv_start:kv_stop], v[:, :, kv_start:kv_stop]

        def attention(*inputs: Tensor) -> Any:
            return dense(mask, *inputs)  # noqa: B023 (called at once)

        differentiate(of, kernel, own, attention, (q_start, kv_start), seed=q_start)


# Changes to the kernels' text that break what is read of a table: each must show in the numbers.
BROKEN = {
    "entries of the slot behind": ("produce", "entries_of(n - 1, places)", "entries_of(n, places)"),
    "the first column of a slot for all": ("columns", "== c, entries[c], entry)", "== 9, entries[c], entry)"),
    "bits of the other rows": ("masks", "o // PAIRS * SIDE + o % PAIRS // SIDE", "o % PAIRS // SIDE"),
    "tiles that begin elsewhere": ("tiles", "i_tile = t_base // (CONSUMERS * ROWS)", "i_tile = t_base // ROWS"),
    "columns behind the last key": ("tiles", "i_tile, i_tile, low, high, 0)", "i_tile, i_tile, low, high * 2, 0)"),
    "columns before the first key": ("tiles", "i_tile, i_tile, low, high, 0)", "i_tile, i_tile, 0, high, 0)"),
    "a rule of tokens for blocks too": ("masks", "m_keep | kept_blocks(kept, s_layout)", "m_keep"),
    "blocks for a rule of tokens": ("masks", "kept + is_some * FINE", "kept"),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_what_is_read_of_a_table_is_used(mistake: str) -> None:
    of, launcher, _ = made("tokens" if "tokens" in mistake else "dense", 16)
    q, k, v = tensors(of.pattern, 700)
    kernel = hopper.kernel_of(launcher, changed=BROKEN[mistake])
    q_start, kv_start, kv_stop = (600, 64, 315) if "key" in mistake else (0, 0, 700)
    mask = reference.dense_mask(of.pattern, 0, 700)[:, q_start:, kv_start:kv_stop]
    inputs = q[:, :, q_start:], k[:, :, kv_start:kv_stop], v[:, :, kv_start:kv_stop]
    with pytest.raises(AssertionError):
        check(attend(of, launcher, kernel, *inputs, (q_start, kv_start)), dense(mask, *inputs))


WRONG = {
    "a row keeps a column": lambda entry: entry | entry + 1,  # of the first rows that do not
    "a row does not keep a column": lambda entry: entry & entry - 1,
    "another column": lambda entry: entry + (1 << 12),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_one_wrong_entry_is_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one of the second tile of 192 rows that some of its rows keep: a column before the tile."""
    of, launcher, kernel = made("drawn", 16)
    inputs = tensors(of.pattern, 384)
    make = launcher.arrays.tile_groups

    def wrong(*given: Any) -> Any:
        pattern, entries, groups = make(*given)
        entries = entries.clone()
        first = int(pattern.view(-1)[int(groups[0, 1]) + pattern.shape[1] + 1])
        assert 0 < entries[first] & 0xFFF < 0xFFF and entries[first] >> 12 < 12
        entries[first] = WRONG[mistake](int(entries[first]))
        return pattern, entries, groups

    monkeypatch.setattr(launcher.arrays, "tile_groups", wrong)
    with pytest.raises(AssertionError):
        check(attend(of, launcher, kernel, *inputs), reference.attention(of.pattern, *inputs))


def test_tables_are_taken_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unasked only closed forms are, which were measured; never what an entry has no bits for."""
    launchers = {"table": made("drawn", 64)[1], "closed": test_forward.made("strided", 64)[1]}
    taken = {}
    for form, launcher in launchers.items():
        monkeypatch.setattr(launcher, "is_hopper", lambda _device: True)
        monkeypatch.setattr(launcher, "is_large", lambda _q: True)
        q, k = (torch.zeros(1, heads, 128, 128, dtype=torch.bfloat16) for heads in (2, 1))
        for family in launcher.FAMILIES:
            monkeypatch.setenv(launcher.SWITCH, family)
            taken[form, family] = launcher.takes(q, k, k, q, launcher.Requests(1, 128, 128))
        keys = 64 * launcher.MOST_COLUMNS
        assert launcher.can(q, k, k, q, launcher.Requests(1, 128, keys)) == (form == "closed")
    assert taken.pop(("closed", "auto"))
    assert taken == {(form, family): family in launcher.ASKED for form, family in taken}


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_long_sequences_of_tables(name: str) -> None:
    of, launcher, kernel = made(name, 16 if "drawn" in name or "masked" in name else 64)
    inputs = tensors(of.pattern, 3001)
    check(attend(of, launcher, kernel, *inputs, seed=7, programs=5), reference.attention(of.pattern, *inputs))
