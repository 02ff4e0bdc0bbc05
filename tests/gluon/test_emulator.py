"""The emulator itself: kernels of a few lines, right ones and ones with each mistake that it must find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gluon import emulate
from tests.gluon.machine import Deadlock, Fault
from tests.gluon.values import Value

# A ring: the producer loads boxes of 8 rows of 64, the consumer adds them up, by products with a matrix of ones.
RING = """
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma
from triton.experimental.gluon.language.nvidia.hopper import warpgroup_mma, warpgroup_mma_wait

LOAD = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared


@gluon.jit
def produce(x, ring, full, empty, count, STAGES: gl.constexpr):
    for n in range(count):
        place = n % STAGES
        mbarrier.wait(empty.index(place), (n // STAGES & 1) ^ 1)
        mbarrier.expect(full.index(place), {bytes})
        LOAD(x, [{batch}, n * 64, 0], full.index(place), ring.index({slot}))


@gluon.jit
def consume(out, ones, ring, full, empty, count, STAGES: gl.constexpr):
    total = gl.zeros([64, 64], gl.float32, None)
    view = ring._reinterpret(gl.bfloat16, [STAGES, 64, 64], gl.NVMMASharedLayout(128, 16, rank=2))
    ones.store(gl.full([64, 64], 1.0, gl.bfloat16, None))
    {fence}
    for n in range(count):
        place = n % STAGES
        mbarrier.wait(full.index(place), n // STAGES & {parity})
        total = warpgroup_mma(ones, view.index(place), total, is_async=True)
        {early}
        total = warpgroup_mma_wait(0, deps=(total,))
        {arrive}
    row = gl.expand_dims(gl.arange(0, 64, None), 1)
    gl.store(out + row * 64 + gl.expand_dims(gl.arange(0, 64, None), 0), total, mask=row < {rows})


@gluon.jit
def kernel(x, out, count, STAGES: gl.constexpr):
    ring = gl.allocate_shared_memory(gl.bfloat16, [STAGES, 1, 64, 64], gl.NVMMASharedLayout(128, 16, rank=3))
    ones = gl.allocate_shared_memory(gl.bfloat16, [64, 64], gl.NVMMASharedLayout(128, 16, rank=2))
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for n in gl.static_range(STAGES):
        mbarrier.init(full.index(n), count=1)
        mbarrier.init(empty.index(n), count=1)
    gl.warp_specialize([
        (consume, (out, ones, ring, full, empty, count, STAGES)),
        (produce, (x, ring, full, empty, count, STAGES)),
    ], [1], [24])
"""
RIGHT = {
    "bytes": "64 * 64 * 2",
    "fence": "fence_async_shared()",
    "parity": "1",
    "early": "",
    "arrive": "mbarrier.arrive(empty.index(place), count=1)",
    "rows": "64",
    "batch": "0",
    "slot": "place",
}
LARGE = "gl.allocate_shared_memory(gl.bfloat16, [99, 64, 64], gl.NVMMASharedLayout(128, 16, rank=3)); "
MISTAKES: dict[str, tuple[dict[str, str], type[Exception], str]] = {
    "an arrival is missing": ({"arrive": ""}, Deadlock, "everybody waits"),
    "too many arrivals": ({"arrive": RIGHT["arrive"].replace("count=1", "count=2")}, Fault, "more arrivals"),
    "too few bytes": ({"bytes": "64 * 64"}, Deadlock, "everybody waits"),
    "a wrong phase": ({"parity": "0"}, Fault, r"everybody waits|still on their way"),
    "freed while a product reads": ({"early": RIGHT["arrive"], "arrive": ""}, Fault, "while a product reads"),
    "read before it is waited for": ({"early": "total = total * 1.0"}, Fault, "not been waited for"),
    "no fence": ({"fence": ""}, Fault, "without a fence"),
    "stored out of bounds": ({"rows": "65", "arrive": RIGHT["arrive"] + "\n    out += 1"}, Fault, "out of bounds"),
    "a slot that the ring does not have": ({"slot": "n"}, Fault, "3 parts, not number 3"),
    "a box beyond the array": ({"batch": "1"}, Fault, r"a box at \[1, 0, 0\]"),
    "more shared memory than there is": ({"fence": LARGE + RIGHT["fence"]}, Fault, "of shared memory"),
}


def run(folder: Path, changed: dict[str, str], seed: int, version: str = "3.6") -> tuple[np.ndarray, np.ndarray]:
    (folder / "ring.py").write_text(RING.format(**RIGHT | changed))
    kernel = emulate.load(folder, "ring", version=version).ring.kernel
    x = np.random.default_rng(seed).standard_normal((1, 7 * 64, 64)).astype(np.float32)
    out = np.zeros((64, 64), np.float32)
    given: dict[str, Any] = {"x": emulate.boxes(x, (1, 64, 64)), "out": out, "count": 7, "STAGES": 3}
    emulate.launch(kernel, (1,), given, seed)
    return out, np.broadcast_to(x.reshape(-1, 64).sum(0), (64, 64))


@pytest.mark.parametrize("version", ["3.6", "3.9"])
def test_a_ring_adds_up(tmp_path: Path, version: str) -> None:
    for seed in range(5):
        out, wanted = run(tmp_path, {}, seed, version)
        assert np.allclose(out, wanted, atol=1e-4)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found(tmp_path: Path, mistake: str) -> None:
    changed, kind, words = MISTAKES[mistake]
    with pytest.raises(kind, match=words):
        for seed in range(20):  # a race shows under some orders only
            run(tmp_path, changed, seed)


def test_whole_numbers_are_those_of_the_device() -> None:
    x = Value(-7)
    assert [int(x // 2), int(x % 4), int(x >> 1), int(x & 3)] == [-3, -3, -4, 1]  # C divides towards zero
    with np.errstate(over="ignore"):
        assert int(Value((1 << 31) - 1) + 1) == -(1 << 31)
    assert (Value(1) / 2).dtype.name == "float32" and float(Value(1) / 2) == 0.5
    with pytest.raises(TypeError, match="a tensor as a condition"):
        bool(Value(np.arange(3, dtype=np.int32)) > 1)


# Two programs add rows of ones, or of twos, to the same numbers, one behind the other.
TURNS = """
from triton.experimental import gluon
from triton.experimental.gluon import language as gl


@gluon.jit
def kernel(out, count):
    turn = gl.program_id(0)
    while gl.atomic_add(count, 0, sem="acquire", scope="gpu") != {turn}:
        pass
    p = out + gl.arange(0, 8, None)
    for n in range(3):
        gl.atomic_add(p + n * 8, gl.full([8], 1.0, gl.float32, None) * (turn + 1), sem="relaxed", scope="gpu")
    {barrier}
    gl.atomic_xchg(count, turn + 1, sem="{sem}", scope="gpu")
"""
IN_TURN = {"turn": "turn", "barrier": "gl.thread_barrier()", "sem": "release"}
OUT_OF_TURN: dict[str, tuple[dict[str, str], type[Exception], str]] = {
    "a turn that nobody has": ({"turn": "turn + 1"}, Deadlock, "waits for a number other than 0 in memory"),
    "one turn for both": ({"turn": "0 * turn"}, Fault, "has not released|waits for a number"),
    "released in no order": ({"sem": "relaxed"}, Fault, "has not released"),
    "released by one lane for all": ({"barrier": ""}, Fault, "not met at a barrier"),
}


def taken_in_turn(folder: Path, changed: dict[str, str], seed: int) -> np.ndarray:
    (folder / "turns.py").write_text(TURNS.format(**IN_TURN | changed))
    out = np.zeros(24, np.float32)
    kernel = emulate.load(folder, "turns").turns.kernel
    emulate.launch(kernel, (2,), {"out": out, "count": np.zeros(1, np.int32)}, seed)
    return out


def test_programs_add_in_turn(tmp_path: Path) -> None:
    for seed in range(5):
        assert (taken_in_turn(tmp_path, {}, seed) == 3).all()


@pytest.mark.parametrize("mistake", OUT_OF_TURN)
def test_additions_out_of_turn_are_found(tmp_path: Path, mistake: str) -> None:
    changed, kind, words = OUT_OF_TURN[mistake]
    with pytest.raises(kind, match=words):
        for seed in range(20):
            taken_in_turn(tmp_path, changed, seed)
