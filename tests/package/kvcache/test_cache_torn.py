"""A step of the compact cache that an error or an interrupt stops: later ones are right, or refused."""

from __future__ import annotations

import copy
import sys
from types import FrameType
from typing import Any

import pytest
import torch

from patterncc import reference
from tests.package.kvcache.test_cache import FP32, MONOTONE
from tests.package.made import compiled, off

REFUSED = "a step of this cache did not end"


class StoppedError(Exception):
    """Stands for any."""


def stopped(package: Any, cache: Any, step: list[torch.Tensor], at: int) -> bool:
    """Whether a step was stopped at line `at` of those that it runs in the package, its kernels left out."""
    name, count = package.__name__, 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(name) or module.startswith(f"{name}.kernels."):
            return None
        count += event == "line"
        if count == at:
            raise StoppedError
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        cache.step(*step)
    except StoppedError:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("max_length", [None, 80])
def test_wherever_a_step_stops_later_ones_are_right_or_refused(path: str, max_length: int | None) -> None:
    pattern, package = compiled(MONOTONE["tokens"])
    torch.manual_seed(1)
    inputs = [torch.randn(2, heads, 80, 16) for heads in (4, 2, 2)]
    true = reference.attention(pattern, *inputs)[0]

    def some(first: int, last: int) -> list[torch.Tensor]:
        return [x[:, :, first:last] for x in inputs]

    made = package.KVCache(2, max_length=max_length)
    made.step(*some(0, 47))
    made.step(*some(47, 48))  # the next one needs a look at the rows, which grow
    seen, every = {"right": 0, "refused": 0}, 17 if path == "kernels" else 11
    for at in range(1, 10_000, every):
        cache = copy.deepcopy(made)
        if not stopped(package, cache, some(48, 49), at):
            break
        try:
            first = cache.length  # 49 if it was stopped at its end
            out = torch.cat([cache.step(*some(n, n + 1)) for n in range(first, 50)], 2)
        except RuntimeError as error:
            assert REFUSED in str(error), error
            with pytest.raises(RuntimeError, match=REFUSED):
                cache.fork([0])
            seen["refused"] += 1
        else:
            assert off(out, true[:, :, first:50]) <= FP32
            seen["right"] += 1
    assert min(seen.values()) > 1, seen
