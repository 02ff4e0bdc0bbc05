"""Every rule that the Hopper kernels take, forward and backward, at a small size. `test_forward` and `test_backward`
have each in every block, most of them slow."""

from __future__ import annotations

import pytest

from tests.gluon import test_backward
from tests.gluon.whole import check
from tests.kernels.held import Held, held

BLOCKS = (16, 32, 64, 128)
SOME = {name: BLOCKS[n % 4] for n, name in enumerate(test_backward.RULES)}  # each rule, and each block several times


def package(name: str) -> Held:
    """The package of a rule, in its block."""
    return held(test_backward.RULES[name].replace("block: 64", f"block: {SOME[name]}"))


@pytest.mark.parametrize("name", SOME)
def test_every_rule(name: str) -> None:
    check(package(name), 150, 215, seed=1, programs=2)
