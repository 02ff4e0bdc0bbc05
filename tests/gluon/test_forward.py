"""The Hopper forward against the reference: its source on numpy, with the launcher's own arguments."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.gluon import hopper
from tests.gluon.machine import Deadlock, Fault
from tests.kernels.held import Held, held, placed, quick, tensors

ERROR = 5e-6  # float32 sums of up to 1,000 keys, in another order than the reference's
HEAD = "pattern: 1\nname: emulated\nheads: 2\nkv_heads: 1\nhead_dim: 64\nblock: 64\npromises: {}\n"
GROUPS = HEAD.replace("heads: 2\nkv_heads: 1", "heads: 4\nkv_heads: 2")
NAMES = "attn_fwd_hopper", "attn_fwd_wide_hopper"
BOTH_WAYS = HEAD + "causal: false\n"
RULES = {
    "strided": HEAD + "shards: [{heads: all, local: 2, stride: 3, offset: h}]",
    "tokens": HEAD + "shards: [{heads: 0, local: 70 tokens, sink: 5 tokens}, {heads: rest, local: 2, sink: 19 tokens}]",
    "wide": HEAD + "shards: [{heads: all, local: 1, stride: 5, offset: [0, 3], width: 2}]",
    "several": GROUPS + "shards: [{heads: all, local: 1, strides: [{every: 3, offset: g}, {every: 4, offset: g + 2}]}]",
    "ranges": HEAD + "shards: [{heads: all, local: 1, strides: [{every: 2, from: 1, to: 4}, {every: 5, from: 4}]}]",
    "mixed": GROUPS + "shards: [{heads: 1, dense: true}, {heads: rest, local: 1, sink: 1}]",
    "starved": HEAD + "shards: [{heads: 0, strides: [{every: 4, offset: 2}]}, {heads: rest, stride: 7, offset: 3}]",
    "chunks_tokens": HEAD
    + "shards: [{heads: 0, chunk: 128 tokens, local: 21 tokens, sink: 5 tokens}, {heads: 1, chunk: 2, local: 4}]",
    "bands": HEAD + "shards: [{heads: 0, local: 9 tokens, strides: [{every: 1, from: 137 tokens, to: 260 tokens}]}, "
    "{heads: 1, strides: [{every: 1, from: 20 tokens}], sink: 5 tokens}]",
    "bands_strided": HEAD + "shards: [{heads: 0, stride: 3, strides: [{every: 1, from: 17 tokens, to: 22 tokens}]}, "
    "{heads: 1, chunk: 2, strides: [{every: 1, from: 40 tokens, to: 90 tokens}]}]",
    "both_ways": BOTH_WAYS + "shards: [{heads: all, local: {before: 2, after: 3}, stride: 5, offset: h}]",
    "both_ways_tokens": BOTH_WAYS
    + "shards: [{heads: all, local: {before: 20 tokens, after: 9 tokens}, sink: 3 tokens}]",
    "chunks": HEAD + "shards: [{heads: 0, chunk: 3}, {heads: rest, local: 1, sink: 1}]",
    "both_ways_dense": BOTH_WAYS + "shards: [{heads: all, dense: true}]",
}
WIDTHS = {16: 64, 32: 128, 64: 128, 128: 64}  # head_dim by block: at 64 a program has three consumers, at 128 two
VARIANTS = [(name, block) for name in RULES for block in WIDTHS]
CHOSEN = [
    ("strided", 64),
    ("strided", 16),
    ("wide", 16),
    ("tokens", 64),
    ("mixed", 32),
    ("both_ways_tokens", 16),
    ("several", 128),
]


@cache
def made(name: str, block: int, head_dim: int = 0) -> tuple[Held, Any, Any]:
    """A pattern's package, its launcher and its kernel on the emulated language."""
    text = RULES[name].replace("head_dim: 64", f"head_dim: {head_dim or WIDTHS[block]}")
    of = held(text.replace("block: 64", f"block: {block}"))
    launcher = importlib.import_module(f"{of.package.__name__}.launch.hopper")
    return of, launcher, hopper.kernel_of(launcher, name=NAMES[launcher.IS_WIDE])


def attend(
    of: Held,
    launcher: Any,
    kernel: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    starts: tuple[int, int] | None = None,
    **more: Any,
) -> tuple[Tensor, Tensor]:
    """Output and LSE of the emulated kernel, from memory full of NaN."""
    q_start, kv_start = (k.shape[2] - q.shape[2], 0) if starts is None else starts
    out, lse = placed(torch.full(q.shape, float("nan"))), torch.full(q.shape[:3], float("nan"))
    requests = launcher.Requests(q.shape[0], q.shape[2], k.shape[2], q_start, kv_start)
    hopper.forward(kernel, launcher, q, k, v, out, lse, requests, **more)
    return out, lse


def check(found: tuple[Tensor, Tensor], true: tuple[Tensor, Tensor]) -> None:
    for x, y in zip(found, true, strict=True):
        same = torch.where(x == y, torch.zeros(()).double(), (x - y).abs())
        assert (same < ERROR).all(), float(same.max())


@pytest.mark.parametrize("variant", quick(VARIANTS, *CHOSEN), ids=lambda v: f"{v[0]}-{v[1]}")
def test_forward(variant: tuple[str, int]) -> None:
    of, launcher, kernel = made(*variant)
    for batch, q_len, kv_len, seed in ((1, 500, 500, 0), (2, 129, 129, 1), (1, 70, 420, 2)):
        inputs = tensors(of.pattern, q_len, kv_len, batch=batch)
        found = attend(of, launcher, kernel, *inputs, seed=seed)
        check(found, reference.attention(of.pattern, *inputs))


@pytest.mark.parametrize("name", ["strided", "both_ways"])
def test_queries_and_keys_stand_anywhere(name: str) -> None:
    """A part of the keys, from a block on; queries before, among and behind them."""
    of, launcher, kernel = made(name, 64)
    q, k, v = tensors(of.pattern, 700)
    for q_start, q_len, kv_start, kv_stop in ((300, 150, 128, 411), (0, 100, 192, 500), (601, 99, 64, 300)):
        mask = reference.dense_mask(of.pattern, 0, 700)[:, q_start : q_start + q_len, kv_start:kv_stop]
        own = q[:, :, q_start : q_start + q_len], k[:, :, kv_start:kv_stop], v[:, :, kv_start:kv_stop]
        found = attend(of, launcher, kernel, *own, (q_start, kv_start), seed=q_start)
        check(found, dense(mask, *own))


def dense(mask: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention under a mask [heads, q_len, kv_len], in fp64."""
    share = q.shape[1] // k.shape[1]
    k, v = (x.double().repeat_interleave(share, 1) for x in (k, v))
    scores = (q.double() @ k.transpose(2, 3) * q.shape[3] ** -0.5).masked_fill(~mask, float("-inf"))
    lse = torch.logsumexp(scores, -1)
    weights = (scores - torch.where(lse.isinf(), 0.0, lse)[..., None]).exp()
    return weights @ v, lse


@pytest.mark.parametrize("head_dim", [40, 80, 160])
def test_heads_narrower_than_their_boxes(head_dim: int) -> None:
    """What lies behind a head's numbers, NaN here, is neither read nor written."""
    of, launcher, kernel = made("several", 64, head_dim)
    assert launcher.IS_WRITTEN_FOR and head_dim < launcher.WIDTH
    inputs = tensors(of.pattern, 200)
    found = attend(of, launcher, kernel, *inputs)
    check(found, reference.attention(of.pattern, *inputs))
    out = found[0]
    behind = torch.as_strided(out, (*out.shape[:3], 8), out.stride(), out.storage_offset() + head_dim)
    assert behind.isnan().all()


# Changes to the kernel's text that break it: each must be found.
WAIT, FREE = "    b_o = warpgroup_mma_wait(0, deps=(b_o,))\n", "    arrive(empty.index(held), count=1)\n"
LOOK_AHEAD = "    wait(full.index(next_place), next_phase, pred=more)\n"
BROKEN = {
    "an arrival is missing": ("steps", FREE + "    b_o = b_o *", "    b_o = b_o *"),
    "a slot is freed before its product ends": (
        "steps",
        WAIT + FREE + "    b_o = b",
        FREE + WAIT + "    b_o = b",
    ),
    "a wrong phase": ("tiles", "gl.where(turn, phase ^ 1, phase)", "phase"),
    "queries are taken before they are there": ("forward", "        wait(q_full, r & 1)\n", ""),
    "a slot is not waited for": ("steps", LOOK_AHEAD, ""),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_what_breaks_the_kernel_is_found(mistake: str) -> None:
    of, launcher, _ = made("strided", 64)
    kernel = hopper.kernel_of(launcher, changed=BROKEN[mistake])
    inputs = tensors(of.pattern, 1100)
    with pytest.raises(Fault):
        for seed in range(5):
            attend(of, launcher, kernel, *inputs, seed=seed, programs=2)


# Changes to what the producer tells of a pattern: each must show in the numbers.
WORD, POSITION = "place * CONSUMERS + w, kept)", "gl.where(is_there, u, ABSENT)"
TOLD = {
    "all is kept": ("strided", "masks", WORD, "place * CONSUMERS + w, WHOLE)"),
    "what the other consumer keeps": ("strided", "masks", WORD, "place * CONSUMERS + 1 - w, kept)"),
    "keys are a block further": ("strided", "masks", POSITION, "gl.where(is_there, u + 64, ABSENT)"),
    "a tile is where the next one lies": ("strided", "forward", "strides, box, 1 - own,", "strides, box, own,"),
    "all is kept where some keys are": ("tokens", "masks", "gl.min(whole.to", "gl.max(whole.to"),
    "all is kept that the first row keeps": (
        "tokens",
        "masks",
        "j, t_last, t_first, u, rule)",
        "j, t_first, t_first, u, rule)",
    ),
}


@pytest.mark.parametrize("mistake", TOLD)
def test_what_the_producer_tells_is_used(mistake: str) -> None:
    name, *changed = TOLD[mistake]
    of, launcher, _ = made(name, 64)
    inputs = tensors(of.pattern, 500)
    found = attend(of, launcher, hopper.kernel_of(launcher, changed=(changed[0], changed[1], changed[2])), *inputs)
    with pytest.raises(AssertionError):
        check(found, reference.attention(of.pattern, *inputs))


# Blocks of a stride that come as one box: the box is used, and where the last period is not whole, it is not.
TOGETHER = {
    "another block of each period": (500, ("produce", "i_kv, period, inside, c", "i_kv, period, inside + 16, c")),
    # rows 256 on keep columns 0, 5, 10 and 15, of a period that ends with 19
    "a period that is not whole": (260, ("produce", "(period + SIDE <= periods)", "(period < periods)")),
}


@pytest.mark.parametrize("mistake", TOGETHER)
def test_blocks_of_a_stride_come_together(mistake: str) -> None:
    head = HEAD.replace("block: 64", "block: 16").replace("head_dim: 64", "head_dim: 128")  # tiles of 128 rows
    text = head + "shards: [{heads: all, local: 1, stride: 5, offset: h}]"
    of = held(text)
    launcher = importlib.import_module(f"{of.package.__name__}.launch.hopper")
    length, changed = TOGETHER[mistake]
    inputs = tensors(of.pattern, length)
    true = reference.attention(of.pattern, *inputs)
    check(attend(of, launcher, hopper.kernel_of(launcher), *inputs), true)
    with pytest.raises(AssertionError):
        check(attend(of, launcher, hopper.kernel_of(launcher, changed=changed), *inputs), true)


def test_a_ring_one_slot_too_short_stands_still() -> None:
    of, launcher, kernel = made("strided", 64)
    unchecked = hopper.kernel_of(launcher, changed=("forward", "gl.static_assert(", "repr("))
    inputs = tensors(of.pattern, 1500)
    found = attend(of, launcher, kernel, *inputs, STAGES=3)
    check(found, reference.attention(of.pattern, *inputs))
    with pytest.raises(Fault, match="static assertion"):
        attend(of, launcher, kernel, *inputs, STAGES=2)
    with pytest.raises(Deadlock, match="everybody waits"):
        attend(of, launcher, unchecked, *inputs, STAGES=2)


def test_slots_passed_at_the_end_of_a_tile_count_in_the_next() -> None:
    """The last slots of a tile and the first of the next may be passed while one slot is held in its place."""
    of, launcher, kernel = made("strided", 128)
    inputs = tensors(of.pattern, 700, 829, batch=2)
    for seed in (52, 55, 58):
        found = attend(of, launcher, kernel, *inputs, seed=seed, programs=5)
        check(found, reference.attention(of.pattern, *inputs))


def test_the_switch_names_what_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    _, launcher, _ = made("strided", 64)
    for family in launcher.FAMILIES:
        monkeypatch.setenv(launcher.SWITCH, family)
        assert launcher.wanted() == family
    monkeypatch.setenv(launcher.SWITCH, "cuda")
    with pytest.raises(ValueError, match="PATTERNCC_KERNELS is one of auto, triton, gluon, fused; it is 'cuda'"):
        launcher.wanted()
