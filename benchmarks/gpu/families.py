"""Both families of kernels on the same inputs, in alternation: the plain ones in Triton, those for Hopper in Gluon."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from benchmarks.gpu import steps, witness
from benchmarks.gpu.attention import both_ways, call_of, flops
from benchmarks.gpu.cases import by_name
from benchmarks.gpu.device import Device, rate
from benchmarks.gpu.switch import NAMES, chosen, is_large, named, standing, within


def measure(device: Device, *, case: str, batch: int, tokens: int, **_: object) -> Iterator[dict[str, object]]:
    """A row for each direction: times and TFLOP/s of both, how much faster Gluon's are, whether they can be had, and
    whether they are taken unasked."""
    facts = by_name(case)
    package = importlib.import_module(facts.module)
    for direction, inputs in both_ways(device.sequences(facts, batch, tokens)):
        errors, calls = [], {}
        for family in NAMES:
            with steps.risky(named(facts, family, direction)), chosen(family):
                errors.append(witness.check_sequences(facts, device.tolerance, package.attention, *inputs))
                calls[family] = within(family, call_of(package.attention, inputs))
        with steps.risky(named(facts, "gluon", direction)):
            times = device.alternate(calls)
        plain, gluon = (times[family].median for family in NAMES)
        row: dict[str, object] = {"direction": direction, "error": max(errors)}
        row |= standing(package.__name__, direction) | {"is_large": is_large(package.__name__, inputs[0])}
        for family in NAMES:
            row |= times[family].row(f"{family}_")
            row[f"{family}_tflops"] = rate(flops(facts, batch, tokens, direction), times[family].median)
        yield row | {"gluon_over_triton": round(plain / gluon, 3)}
