"""The Hopper backward against the reference: its source on numpy, with the launcher's own arguments.

Longer than other files by its list of mistakes, each of which the tests above it must find.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.gluon import hopper
from tests.gluon.machine import Deadlock, Fault
from tests.gluon.test_forward import RULES, dense
from tests.kernels.held import Held, gradients, held, never_read, off, placed, quick, tensors, weights

ERROR = 3e-6  # by norm, relative: float32 sums of up to 1,000 products, in another order than the reference's
LOG2_E = 1.4426950408889634
VARIANTS = [(name, block) for name in RULES for block in (16, 32, 64, 128)]
CHOSEN = [("strided", 64), ("wide", 16), ("tokens", 64), ("bands_strided", 16), ("both_ways_tokens", 32)]
NAMES = "attn_bwd_dq_hopper", "attn_bwd_dkdv_hopper"


@cache
def made(name: str, block: int) -> tuple[Held, Any, tuple[Any, Any]]:
    """A pattern's package, its launcher and its kernels on the emulated language."""
    of = held(RULES[name].replace("block: 64", f"block: {block}"))
    launcher = importlib.import_module(f"{of.package.__name__}.launch.hopper_backward")
    return of, launcher, tuple(hopper.kernel_of(launcher, name=name) for name in NAMES)  # type: ignore[return-value]


def sums_of(out: Tensor, lse: Tensor, dout: Tensor, dlse: Tensor | None) -> tuple[Tensor, Tensor]:
    """What `attn_bwd_prepare` writes: LSE in powers of 2, +inf where nothing is kept, and delta."""
    delta = (out.double() * dout.double()).sum(-1) - (0 if dlse is None else dlse.double())
    empty = lse == float("-inf")
    log_sum = torch.where(empty, float("inf"), lse * LOG2_E)
    return log_sum.float().contiguous(), torch.where(empty, 0.0, delta).float().contiguous()


def differentiate(
    launcher: Any,
    kernels: tuple[Any, Any],
    inputs: Sequence[Tensor],
    sums: tuple[Tensor, Tensor],
    starts: tuple[int, int],
    **more: Any,
) -> tuple[Tensor, ...]:
    """dq, dk and dv of the emulated kernels, from memory full of NaN; inputs: q, k, v, dout."""
    q, k = inputs[:2]
    grads = [placed(torch.full(x.shape, float("nan"))) for x in inputs[:3]]
    requests = launcher.Requests(q.shape[0], q.shape[2], k.shape[2], *starts)
    assert launcher.hopper.IS_WRITTEN_FOR
    hopper.backward(kernels, launcher, inputs, grads, sums, requests, **more)
    return tuple(grads)


def check(found: Sequence[Tensor], true: Sequence[Tensor]) -> None:
    errors = {name: off(x, y) for name, x, y in zip(("dq", "dk", "dv"), found, true, strict=True)}
    assert max(errors.values()) < ERROR, errors


def compare(launcher: Any, kernels: Any, inputs: Sequence[Tensor], attend: Any, starts: Any, **more: Any) -> None:
    """The emulated gradients against those of `attend` in fp64, through output and LSE."""
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])
    dout = placed(dout)
    wide = [x.double() for x in inputs]
    sums = sums_of(*attend(*wide), dout, dlse)
    found = differentiate(launcher, kernels, (*inputs, dout), sums, starts, **more)
    check(found, gradients(attend, wide, dout, dlse))


@pytest.mark.parametrize("variant", quick(VARIANTS, *CHOSEN), ids=lambda v: f"{v[0]}-{v[1]}")
def test_backward(variant: tuple[str, int], short_items: Any) -> None:
    of, launcher, kernels = made(*variant)
    short_items(launcher)
    for batch, q_len, kv_len, seed in ((1, 500, 500, 0), (2, 129, 129, 1), (1, 70, 420, 2)):
        inputs = tensors(of.pattern, q_len, kv_len, batch=batch)

        def attend(*inputs: Tensor) -> Any:
            return reference.attention(of.pattern, *inputs)

        compare(launcher, kernels, inputs, attend, (kv_len - q_len, 0), seed=seed)


def parts_of(of: Held) -> Iterator[tuple[Any, Any, tuple[int, int]]]:
    """Some of the queries and keys, attention of them by the mask, and where they begin."""
    q, k, v = tensors(of.pattern, 700)
    for q_start, q_len, kv_start, kv_stop in ((300, 150, 128, 411), (0, 100, 192, 500), (601, 99, 64, 300)):
        mask = reference.dense_mask(of.pattern, 0, 700)[:, q_start : q_start + q_len, kv_start:kv_stop]
        own = q[:, :, q_start : q_start + q_len], k[:, :, kv_start:kv_stop], v[:, :, kv_start:kv_stop]
        yield own, partial(dense, mask), (q_start, kv_start)


@pytest.mark.parametrize("name", ["strided", "both_ways"])
def test_queries_and_keys_stand_anywhere(name: str, short_items: Any) -> None:
    """A part of the keys, from a block on; queries before, among and behind them. Sums are added to in rounds."""
    of, launcher, kernels = made(name, 64)
    short_items(launcher, most_slots=0)
    for own, attend, starts in parts_of(of):
        compare(launcher, kernels, own, attend, starts, seed=starts[0])


def test_what_no_query_keeps_may_be_anything(short_items: Any) -> None:
    """Keys and values that nobody reads are NaN: their gradients are 0, and nobody else's is touched."""
    of, launcher, kernels = made("starved", 64)
    short_items(launcher)
    inputs = tensors(of.pattern, 600)
    clean = [x.clone() for x in inputs]
    never_read(of, inputs)

    def attend(*given: Tensor) -> Any:
        return reference.attention(of.pattern, *given)

    dout, dlse = weights(inputs[0], inputs[0].shape[:3])
    true = gradients(attend, [x.double() for x in clean], dout, dlse)
    sums = sums_of(*attend(*clean), dout, dlse)
    check(differentiate(launcher, kernels, (*inputs, placed(dout)), sums, (0, 0)), true)


def test_results_repeat_and_long_columns_are_split(short_items: Any) -> None:
    """Whoever takes which item, and in which order copies land, the numbers are the same to the bit."""
    of, launcher, kernels = made("strided", 16)
    short_items(launcher)
    inputs = tensors(of.pattern, 260)
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])
    sums = sums_of(*reference.attention(of.pattern, *inputs), dout, dlse)
    requests = launcher.Requests(1, 260, 260, 0, 0)
    work, _ = launcher.work_of(inputs[0], requests, (0, 0, of.pattern.heads))
    assert int(work.launches[0][0][:, 8].max()) > 1  # parts of an item
    found = [
        differentiate(launcher, kernels, (*inputs, dout), sums, (0, 0), seed=seed, programs=programs)
        for seed, programs in ((0, 1), (1, 7))
    ]
    assert all(torch.equal(x, y) for other in found[1:] for x, y in zip(found[0], other, strict=True))


@pytest.mark.interpret
def test_the_whole_pass(short_items: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernels before and after it, which Triton's interpreter runs."""
    of, launcher, kernels = made("strided", 64)
    short_items(launcher)
    launch = importlib.import_module(f"{of.package.__name__}.launch.backward")
    monkeypatch.setattr(launcher, "takes", lambda *_given: True)
    inputs = tensors(of.pattern, 400, batch=2)
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])

    def attend(*given: Tensor) -> Any:
        return reference.attention(of.pattern, *given)

    out, lse = (x.float() for x in attend(*inputs))
    options: dict[str, Any] = {"layer": 0, "scale": of.pattern.head_dim**-0.5, "head_offset": 0}
    with hopper.launched(kernels, launcher, lambda _sums: False) as found:
        grads = launch.backward(*inputs, out, lse, dout, dlse, **options, q_start=0, kv_start=0)
    assert found == list(kernels)
    check(grads, gradients(attend, [x.double() for x in inputs], dout, dlse))


# Changes to the kernels' text that break them: each must be found.
FREE = "    arrive(empty.index(place), count=1)\n    return b_dk"
FAR_FREE = "    arrive(empty.index(place), count=1)\n"
HELD = "        arrive(empty.index(held), count=1)\n    return b_dq"
BROKEN = {
    "a slot of dK and dV is not freed": (1, "backward_steps", FREE, "    return b_dk"),
    "a slot of dK and dV is freed before its products end": (
        1,
        "backward_steps",
        "    b_dv, b_dk = warpgroup_mma_wait(0, deps=(b_dv, b_dk))\n" + FREE,
        FREE.replace("    return b_dk", "    b_dv, b_dk = warpgroup_mma_wait(0, deps=(b_dv, b_dk))\n    return b_dk"),
    ),
    "keys are freed while they are read": (
        1,
        "backward_steps",
        "    b_dp = warpgroup_mma_wait(0, deps=(b_dp,))\n    arrive(kv_empty, count=1, pred=is_last)\n",
        "    arrive(kv_empty, count=1, pred=is_last)\n    b_dp = warpgroup_mma_wait(0, deps=(b_dp,))\n",
    ),
    "keys are not freed where the last slot is passed": (
        1,
        "backward_dkdv",
        "                arrive(kv_empty, count=1, pred=n + 1 == n_edge + n_far)\n",
        "",
    ),
    "the next slot of dK and dV is not waited for": (
        1,
        "backward_far",
        "    wait(full.index(next_place), next_phase)\n    b_dp = warpgroup_mma_wait(0, deps",
        "    b_dp = warpgroup_mma_wait(0, deps",
    ),
    "a far slot of dK and dV is not freed": (1, "backward_far", FAR_FREE + "    b_dp =", "    b_dp ="),
    "a far slot of dK and dV is freed before its product ends": (
        1,
        "backward_far",
        "    b_dk = warpgroup_mma_wait(1, deps=(b_dk,))\n" + FAR_FREE,
        FAR_FREE + "    b_dk = warpgroup_mma_wait(1, deps=(b_dk,))\n",
    ),
    "keys are freed while a far slot's products read them": (
        1,
        "backward_far",
        "    b_dp = warpgroup_mma_wait(0, deps=(b_dp,))\n    arrive(kv_empty, count=1)\n",
        "    arrive(kv_empty, count=1)\n    b_dp = warpgroup_mma_wait(0, deps=(b_dp,))\n",
    ),
    "keys are not freed behind far slots": (1, "backward_far", "    arrive(kv_empty, count=1)\n", ""),
    "the last far slot is not freed": (1, "backward_far", FAR_FREE + "    next_place", "    next_place"),
    "keys are taken before they are there": (1, "backward_dkdv", "        wait(kv_full, r & 1)\n", ""),
    "a slot of dQ is not freed": (0, "backward_steps", HELD, "    return b_dq"),
    "a slot of dQ is freed before its product ends": (
        0,
        "backward_steps",
        "        b_dq = warpgroup_mma_wait(0, deps=(b_dq,))\n" + HELD,
        HELD.replace("    return b_dq", "        b_dq = warpgroup_mma_wait(0, deps=(b_dq,))\n    return b_dq"),
    ),
    "rows of dQ are freed while they are read": (
        0,
        "backward_dq",
        "        b_dq = gl.zeros([ROWS, HEAD_DIM], gl.float32, o_layout)\n",
        "        arrive(q_empty, count=1)\n        b_dq = gl.zeros([ROWS, HEAD_DIM], gl.float32, o_layout)\n",
    ),
    "a wrong phase": (0, "tiles", "gl.where(turn, phase ^ 1, phase)", "phase"),
    "a wrong phase, of items": (1, "tiles", "gl.where(turn, phase ^ 1, phase)", "phase"),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_what_breaks_the_kernels_is_found(mistake: str) -> None:
    which, *changed = BROKEN[mistake]
    of, launcher, kernels = made("strided" if "passed" in mistake else "mixed", 64)
    broken = list(kernels)
    broken[which] = hopper.kernel_of(launcher, name=NAMES[which], changed=tuple(changed))  # type: ignore[arg-type]
    inputs = tensors(of.pattern, 700)
    dout = torch.ones_like(inputs[0])
    sums = torch.zeros(inputs[0].shape[:3]), torch.zeros(inputs[0].shape[:3])
    with pytest.raises(Fault):
        for seed in range(8):
            given = (*inputs, dout)
            differentiate(launcher, tuple(broken), given, sums, (0, 0), seed=seed, programs=2, STAGES=3)


@pytest.mark.parametrize(("which", "least"), [(0, 3), (1, 2)])
def test_a_ring_one_slot_too_short_stands_still(which: int, least: int) -> None:
    of, launcher, kernels = made("strided", 64)
    file = ("backward_dq", "backward_dkdv")[which]
    unchecked = list(kernels)
    unchecked[which] = hopper.kernel_of(launcher, name=NAMES[which], changed=(file, "gl.static_assert(", "repr("))
    inputs = tensors(of.pattern, 900)
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])

    def attend(*given: Tensor) -> Any:
        return reference.attention(of.pattern, *given)

    sums = sums_of(*attend(*inputs), dout, dlse)
    given = (*inputs, placed(dout))
    found = differentiate(launcher, kernels, given, sums, (0, 0), STAGES=3)
    check(found, gradients(attend, [x.double() for x in inputs], dout, dlse))
    with pytest.raises(Fault, match="static assertion"):
        differentiate(launcher, kernels, given, sums, (0, 0), STAGES=least - 1)
    with pytest.raises(Deadlock, match="everybody waits"):
        one = {"STAGES": least - 1}
        broken = [kernels[0], kernels[1]]
        broken[which] = unchecked[which]
        if which == 1:  # dQ would stand still first
            broken[0] = lambda **_given: None
        differentiate(launcher, tuple(broken), given, sums, (0, 0), **one)
