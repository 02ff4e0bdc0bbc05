"""The fused Hopper backward with each mistake that the emulator, or wrong numbers, must show."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gluon import fused
from tests.gluon.machine import Deadlock, Fault
from tests.gluon.test_fused import attention, compare, compare_unread, made
from tests.kernels.held import tensors

pytestmark = pytest.mark.usefixtures("poisoned")

# Changes to the kernels' text that break them: each must be found.
RELEASE = '        gl.atomic_xchg(p_count, rank + 1, sem="release", scope="gpu")\n'
SPIN = '        while gl.atomic_add(p_count, 0, sem="acquire", scope="gpu") != rank:\n            pass\n'
MADE = "    arrive(made, count=1)\n"
FENCE = "    fence_async_shared()\n"
DONE = "    b_dv, b_dk = warpgroup_mma_wait(1, deps=(b_dv, b_dk))\n"
BROKEN: dict[str, tuple[type[BaseException], str, str, str]] = {
    "a wrong rank": (Deadlock, "produce_fused", "noted(notes, RANKS) + n)))", "noted(notes, RANKS) + n)) + 1)"),
    "a tile is not released": (Deadlock, "add_tiles", RELEASE, ""),
    "no waiting for one's turn": (AssertionError, "add_tiles", SPIN, ""),
    "released before it is there": (Fault, "add_tiles", 'rank + 1, sem="release"', 'rank + 1, sem="relaxed"'),
    "released before all lanes have added": (Fault, "add_tiles", "        barrier()\n", ""),
    "the first is added to what was there": (AssertionError, "add_tiles", "if rank == 0:", "if rank < 0:"),
    "gradients are multiplied before they are there": (
        AssertionError,
        "fused_steps",
        "    wait(made, turn & 1)\n",
        "",
    ),
    "gradients are left in one room": (Fault, "fused_steps", "(turn & 1) * 2", "(turn & 0) * 2"),
    "no fence behind gradients": (Fault, "fused_steps", FENCE + MADE, MADE),
    "a tile's room is not waited for": (AssertionError, "add_tiles", "    wait(tile_empty, (turn & 1) ^ 1)\n", ""),
    "a tile is not told": (Deadlock, "add_tiles", "    arrive(tile_full, count=1)\n\n\n@gluon.jit\ndef tell_end", "\n\n"
                           "@gluon.jit\ndef tell_end"),
    "a slot is freed before its products end": (
        Fault,
        "fused_steps",
        DONE,
        "    arrive(empty.index(place), count=1)\n" + DONE.replace("(1,", "(0,"),
    ),
    "keys are freed while dQ is made of them": (
        Fault,
        "fused_steps",
        "    b_dq = warpgroup_mma_wait(0, deps=(b_dq,))\n    if left == 0:\n        arrive(k_empty, count=1)\n",
        "    if left == 0:\n        arrive(k_empty, count=1)\n    b_dq = warpgroup_mma_wait(0, deps=(b_dq,))\n",
    ),
    "keys that nobody keeps are read": (
        AssertionError,
        "produce_fused",
        "& 1 != 0, row, NOTHING)",
        "& 1 != 2, row, NOTHING)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", BROKEN)
def test_what_breaks_the_kernels_is_found(mistake: str, cut_items: Any) -> None:
    kind, *changed = BROKEN[mistake]
    is_unread = "nobody" in mistake
    of, launcher, _ = made("closed", "tokens" if is_unread else "mixed", 64)
    cut_items(launcher)
    broken = fused.kernels_of(launcher, tuple(changed))  # type: ignore[arg-type]
    with pytest.raises(kind):  # a fault is one too: numbers are wrong, or the emulator says why
        for seed in range(6):
            if is_unread:
                compare_unread(of, launcher, broken, seed=seed)
            else:
                inputs = tensors(of.pattern, 330)
                compare(launcher, broken, inputs, attention(of), (0, 0), seed=seed, programs=4)
