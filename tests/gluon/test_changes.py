"""The lines of the Hopper kernels that might become others (`benchmarks/gpu/changes.py`): they change no result."""

from __future__ import annotations

import pytest

from benchmarks.gpu.changes import STEP, UP
from patterncc import reference
from tests.gluon import hopper
from tests.gluon.test_forward import attend, check, made
from tests.kernels.held import tensors


@pytest.mark.parametrize(("name", "block"), [("strided", 64), ("strided", 16), ("mixed", 32)])
def test_far_slots_walked_up(name: str, block: int) -> None:
    """All of them, each once; and a walk that leaves one out is seen."""
    of, launcher, _ = made(name, block)
    inputs = tensors(of.pattern, 700)
    true = reference.attention(of.pattern, *inputs)
    check(attend(of, launcher, hopper.kernel_of(launcher, changed=("produce", STEP, UP)), *inputs), true)
    with pytest.raises(AssertionError):
        wrong = hopper.kernel_of(launcher, changed=("produce", STEP, UP.replace("far - 1 - n", "far - 1")))
        check(attend(of, launcher, wrong, *inputs), true)
