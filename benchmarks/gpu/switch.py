"""The families of kernels, and the switch that says which of them packages take."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from benchmarks.gpu.cases import Case

SWITCH, NAMES = "PATTERNCC_KERNELS", ("triton", "gluon")


def named(case: Case, family: str, direction: str) -> str:
    """What a hang in one cell says of others: the family's kernels of a direction, head dim, block and form."""
    form = ", tables" if case.plan == "table" else ""
    return f"{direction} by {family}, head dim {case.head_dim}, blocks of {case.block}{form}"


def within(family: str, call: Callable[[], object]) -> Callable[[], object]:
    """The call, by this family of kernels."""

    def run() -> object:
        with chosen(family):
            return call()

    return run


@contextmanager
def chosen(family: str) -> Iterator[None]:
    """While it lasts, packages take this family wherever it can be had."""
    held = os.environ.get(SWITCH)
    os.environ[SWITCH] = family
    try:
        yield
    finally:
        if held is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = held


def standing(package: str, direction: str) -> dict[str, object]:
    """Whether there are two families, by device, Triton's version and head dim: else the rows compare the first with
    itself; and whether the package takes the second one unasked."""
    hopper, backward = (importlib.import_module(f"{package}.launch.{file}") for file in ("hopper", "hopper_backward"))
    written = (hopper if direction == "forward" else backward).IS_WRITTEN_FOR
    is_open = hopper.TABLES_BY_DEFAULT or not hopper.IS_TABLE
    here = torch.cuda.is_available() and hopper.is_hopper(torch.device("cuda", torch.cuda.current_device()))
    return {
        "is_hopper": bool(here and written),
        "unasked": bool(is_open and (hopper.IS_FASTER if direction == "forward" else backward.BY_DEFAULT)),
    }


def is_large(package: str, q: torch.Tensor) -> bool:
    """Whether the work is large enough that the package takes the second family unasked."""
    hopper = importlib.import_module(f"{package}.launch.hopper")
    return hopper.IS_WRITTEN_FOR and hopper.is_hopper(q.device) and hopper.is_large(q)


def unasked(case: Case, direction: str) -> str:
    """The family that large calls take where nobody asks for one."""
    found = standing(case.module, direction)
    return "gluon" if found["is_hopper"] and found["unasked"] else "triton"
