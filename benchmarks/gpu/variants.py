"""Packages by the kernels in Gluon against what they might become (`changes`), in alternation: copies in which one line
is another, or another family of kernels."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence

from benchmarks.gpu import steps, switch, witness
from benchmarks.gpu.attention import both_ways, call_of
from benchmarks.gpu.cases import by_name
from benchmarks.gpu.device import Device

FAMILY = "gluon"  # what the changed lines are of


class MissingFamilyError(Exception):
    """A family of kernels that the package does not have."""


def measure(
    device: Device,
    *,
    case: str,
    base: str,
    batch: int,
    tokens: int,
    directions: Sequence[str],
    family: str = FAMILY,
    **_: object,
) -> Iterator[dict[str, object]]:
    """A row for each direction: both times, and how much faster the changed one is."""
    facts = by_name(base)
    packages = {"now": (by_name(base).module, FAMILY), "changed": (by_name(case).module, family)}
    hopper = importlib.import_module(f"{by_name(case).module}.launch.hopper")
    if family not in hopper.FAMILIES:
        raise MissingFamilyError(f"the package has no kernels of the name {family}: {', '.join(hopper.FAMILIES)}")
    for direction, inputs in both_ways(device.sequences(facts, batch, tokens)):
        if direction not in directions:
            continue
        errors, calls = [], {}
        for name, (module, kernels) in packages.items():
            attention = importlib.import_module(module).attention
            risk = switch.named(facts, kernels, direction) + (f", {case}" if case != base and name == "changed" else "")
            with steps.risky(risk), switch.chosen(kernels):
                errors.append(witness.check_sequences(facts, device.tolerance, attention, *inputs))
                calls[name] = switch.within(kernels, call_of(attention, inputs))
        times = device.alternate(calls)
        yield {
            "direction": direction,
            "error": max(errors),
            "is_hopper": switch.standing(packages["now"][0], direction)["is_hopper"],
            **times["now"].row("now_"),
            **times["changed"].row("changed_"),
            "changed_over_now": round(times["now"].median / times["changed"].median, 4),
        }
