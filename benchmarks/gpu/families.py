"""Both families of kernels on the same inputs, in alternation: the plain ones in Triton, those for Hopper in Gluon."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from benchmarks.gpu import witness
from benchmarks.gpu.attention import both_ways, call_of, flops
from benchmarks.gpu.cases import by_name
from benchmarks.gpu.device import Device, rate

SWITCH, NAMES = "PATTERNCC_KERNELS", ("triton", "gluon")


def measure(device: Device, *, case: str, batch: int, tokens: int, **_: object) -> Iterator[dict[str, object]]:
    """A row for each direction: times and TFLOP/s of both, how much faster Gluon's are, whether they can be had, and
    whether they are taken unasked."""
    facts = by_name(case)
    package = importlib.import_module(facts.module)
    for direction, inputs in both_ways(device.sequences(facts, batch, tokens)):
        errors, calls = [], {}
        for family in NAMES:
            with chosen(family):
                errors.append(witness.check_sequences(facts, device.tolerance, package.attention, *inputs))
                calls[family] = within(family, call_of(package.attention, inputs))
        times = device.alternate(calls)
        plain, gluon = (times[family].median for family in NAMES)
        row: dict[str, object] = {"direction": direction, "error": max(errors)}
        row |= standing(package.__name__, direction)
        for family in NAMES:
            row |= times[family].row(f"{family}_")
            row[f"{family}_tflops"] = rate(flops(facts, batch, tokens, direction), times[family].median)
        yield row | {"gluon_over_triton": round(plain / gluon, 3)}


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
