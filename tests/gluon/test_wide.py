"""The Hopper forward for wide heads, whose keys and values have rings of their own, on numpy against the reference."""

from __future__ import annotations

import pytest

from patterncc import reference
from tests.gluon import hopper
from tests.gluon.machine import Deadlock, Fault
from tests.gluon.test_forward import NAMES, RULES, attend, check, dense, made
from tests.gluon.test_packed import check_packed
from tests.kernels.held import quick, tensors

DIM = 256
VARIANTS = [(name, block) for name in RULES for block in (16, 64, 128)]
CHOSEN = [("strided", 64), ("wide", 16), ("tokens", 128), ("both_ways_tokens", 16)]
PACKED = [(name, block, page) for name in RULES for block in (16, 64, 128) for page in (0, 48, 64)]
CHOSEN_PACKED = [("strided", 64, 0), ("mixed", 16, 48)]


@pytest.mark.parametrize("variant", quick(VARIANTS, *CHOSEN), ids=lambda v: f"{v[0]}-{v[1]}")
def test_forward(variant: tuple[str, int]) -> None:
    of, launcher, kernel = made(*variant, DIM)
    for batch, q_len, kv_len, seed in ((1, 500, 500, 0), (2, 129, 129, 1), (1, 70, 420, 2)):
        inputs = tensors(of.pattern, q_len, kv_len, batch=batch)
        found = attend(of, launcher, kernel, *inputs, seed=seed)
        check(found, reference.attention(of.pattern, *inputs))


@pytest.mark.parametrize("variant", quick(PACKED, *CHOSEN_PACKED), ids=lambda v: f"{v[0]}-{v[1]}-page{v[2]}")
def test_packed_and_paged(variant: tuple[str, int, int]) -> None:
    check_packed(*made(*variant[:2], DIM), variant[2])


def test_queries_and_keys_stand_anywhere() -> None:
    """A part of the keys, from a block on; queries before, among and behind them."""
    of, launcher, kernel = made("several", 64, DIM)
    q, k, v = tensors(of.pattern, 700)
    for q_start, q_len, kv_start, kv_stop in ((300, 150, 128, 411), (0, 100, 192, 500)):
        mask = reference.dense_mask(of.pattern, 0, 700)[:, q_start : q_start + q_len, kv_start:kv_stop]
        own = q[:, :, q_start : q_start + q_len], k[:, :, kv_start:kv_stop], v[:, :, kv_start:kv_stop]
        check(attend(of, launcher, kernel, *own, (q_start, kv_start), seed=q_start), dense(mask, *own))


# Changes to the kernel's text that break it: each must be found.
KEYS = "    arrive(k_empty.index(k), count=1)\n    if IS_FIRST:"
SCORES = "    b_s = warpgroup_mma_wait(0 if IS_FIRST else 1, deps=(b_s,))\n"
FREE, WAIT = "        arrive(v_empty.index(held[0]), count=1)\n", "        b_o = warpgroup_mma_wait(0, deps=(b_o,))\n"
BROKEN = {
    "keys are not freed": ("steps_wide", KEYS, "    if IS_FIRST:"),
    "keys are freed before their product ends": (
        "steps_wide",
        SCORES,
        "    arrive(k_empty.index(k), count=1)\n" + SCORES,
    ),
    "values are not freed": ("steps_wide", FREE, ""),
    "values are freed before their product ends": ("steps_wide", WAIT + FREE, FREE + WAIT),
    "values are not waited for": ("steps_wide", "        wait(v_full.index(held[0]), held[1])\n", ""),
    "the next keys are not waited for": ("steps_wide", "    wait(k_full.index(k), k_phase, pred=more)\n", ""),
    "a passed slot's values are kept": ("steps_wide", "    arrive(v_empty.index(v), count=1)\n", ""),
    "queries are taken before they are there": ("forward_wide", "        wait(q_full.index(W), r & 1)\n", ""),
    "queries are freed before their last product": (
        "forward_wide",
        "        # far slots: every row keeps every key\n",
        "        arrive(q_empty.index(W), count=1)\n",
    ),
    "a wrong phase": ("tiles", "gl.where(turn, phase ^ 1, phase)", "phase"),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_what_breaks_the_kernel_is_found(mistake: str) -> None:
    of, launcher, _ = made("starved" if "passed" in mistake else "strided", 64, DIM)
    kernel = hopper.kernel_of(launcher, name=NAMES[1], changed=BROKEN[mistake])
    inputs = tensors(of.pattern, 700)
    with pytest.raises(Fault):
        for seed in range(5):
            attend(of, launcher, kernel, *inputs, seed=seed, programs=2)


def test_a_ring_one_place_too_short_stands_still() -> None:
    of, launcher, kernel = made("strided", 64, DIM)
    changed = ("forward_wide", "gl.static_assert(", "repr(")
    unchecked = hopper.kernel_of(launcher, name=NAMES[1], changed=changed)
    inputs = tensors(of.pattern, 900)
    found = attend(of, launcher, kernel, *inputs, K_STAGES=1, V_STAGES=2)
    check(found, reference.attention(of.pattern, *inputs))
    with pytest.raises(Fault, match="static assertion"):
        attend(of, launcher, kernel, *inputs, V_STAGES=1)
    with pytest.raises(Deadlock, match="everybody waits"):
        attend(of, launcher, unchecked, *inputs, V_STAGES=1)
