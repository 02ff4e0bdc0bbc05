"""The targets, each with its figure and whether it is met; what was not measured whole has no verdict but a miss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Rows = Sequence[Mapping[str, Any]]
DIRECTIONS = ("forward", "backward")
FIRST, SECOND = "load, first time", "load, second time"  # of `startup`
LARGE = 100_000_000  # bytes
FAR = "128k tokens, 1/32 or less: forward over FlashAttention-2"
OWN = "the same where bf16 is left to tiles of the processor (AMX)"
SHARES = {"fp32": 0.8, "bf16": 0.65}  # of the ideal, on the CPU


def cpu(results: Mapping[str, Rows]) -> list[dict[str, object]]:
    """One row a target of the CPU suite."""
    return [target.verdict() for target in of_cpu(results)]


def of_cpu(results: Mapping[str, Rows]) -> list[Target]:
    """The targets of the CPU suite, with the rows that they are about."""
    startup, lowering, loops = _part(results, "startup"), _part(results, "lowering"), _part(results, "loops")
    closed = _of(lowering, what="closed form", heads=32, tokens=1 << 20)
    forward = [row for row in _part(results, "attention") if row.get("direction") != "backward"]
    far = [row for row in forward if row.get("tokens", 4096) >= 4096]
    helped = [{"torch": float("torch_ms" in row)} for row in _of(results.get("imports", ()), what="--help")]
    return [
        _most("start-up: --help, warm, seconds", _of(startup, what="--help"), "wall_s", 0.15),
        _most("the same: torch imported (0 no, 1 yes)", helped, "torch", 1),
        _most("YAML to importable package, seconds (torch imported)", _of(startup, what=FIRST), "wall_s", 0.3),
        _most("the same a second time, seconds", _of(startup, what=SECOND), "wall_s", 0.05),
        _most("lowering 32 heads, 1M tokens, closed form, seconds", closed, "seconds", 0.010),
        _most("the same, bytes", closed, "bytes", 1e6),
        _most(
            "the same as a table, block 64, seconds",
            _of(lowering, what="table", heads=32, tokens=1 << 20, block=64),
            "seconds",
            2.0,
        ),
        _most("slowest proof in the gallery, seconds", _part(results, "gallery", "proofs"), "wall_s", 0.005),
        _most("slowest proof of the adversarial set, seconds", _part(results, "proofs"), "wall_s", 1.0),
        *(
            _least(
                f"CPU forward, {dtype}, 4k to 32k: share of ideal, least",
                [row for row in far if row.get("dtype", dtype) == dtype and row.get("products") != "own"],
                "share_of_ideal",
                goal,
            )
            for dtype, goal in SHARES.items()
        ),
        _least(OWN, _of(far, products="own"), "share_of_ideal", SHARES["bf16"]),
        *(
            _most(f"sm_90, {name}: instructions per kept key, times dense", _of(loops, what=name), "to_dense", 1.1)
            for name in ("block 128", "block 16")
        ),
        _least("CPU forward over compiled flex_attention, least", forward, "over_flex", 1.0),
        _least("CPU forward over dense, least", forward, "speedup", 1.0),
    ]


def gpu(results: Mapping[str, Rows]) -> list[dict[str, object]]:
    """One row a target of the GPU suite."""
    return [target.verdict() for target in of_gpu(results)]


def of_gpu(results: Mapping[str, Rows]) -> list[Target]:
    """The targets of the GPU suite, with the rows that they are about. Below 16k tokens no dense kernel reaches its own
    ceiling, so shares of it are asked of longer sequences; below 100 MB of kept keys and values a step is no longer
    than its launches."""
    rows, peers = results.get("attention", ()), results.get("peers", ())
    far = [row for row in rows if row.get("tokens", 0) >= 16384]
    thin = [row for row in rows if row.get("tokens") == 131072 and row.get("density", 1) <= 1 / 32]
    both = [{"cell": "forward and backward, 1 x 131072", "over_flash": _both_ways(thin)}] if thin else []
    steps = _of(results.get("serving", ()), what="decode")
    large = [row for row in steps if row.get("kept_bytes", LARGE) >= LARGE]
    small = [row for row in steps if row.get("kept_bytes", 0) < LARGE]
    host = results.get("host", ())
    return [
        *(
            _least(
                f"{direction}, 16k tokens and more: share of the best dense kernel's FLOP/s, least",
                _either(far, direction),
                "share_of_dense",
                goal,
            )
            for direction, goal in zip(DIRECTIONS, (0.9, 0.8), strict=True)
        ),
        *(
            _least(f"{direction}: over {name}, least", _either(_of(peers, peer=peer), direction), "over_peer", goal)
            for name, peer in (("FlexAttention", "flex"), ("DKernel", "dkernel"))
            for direction, goal in zip(DIRECTIONS, (1.4, 1.5), strict=True)
        ),
        _least("backward of grouped heads: FLOP/s over ungrouped", _grouped(far), "over_ungrouped", 0.95),
        _least(FAR, _either(thin, "forward"), "over_flash", 25.3, beyond=True),
        _least("the same, forward and backward", both, "over_flash", 25.3, beyond=True),
        _least("decoding, 100 MB and more: share of the copy's bandwidth, least", large, "share_of_copy", 0.85),
        _most("decoding, less than that: microseconds over the copy's, most", small, "over_floor_us", 15),
        *(
            _most(f"{what}: microseconds of Python a call", _of(host, what=what), "host_us", goal)
            for what, goal in (("attention", 40), ("decode", 40), ("backward", 100))
        ),
    ]


def _grouped(rows: Rows) -> Rows:
    """How fast a pair is where heads share keys, over where none do, of one sequence of 16k tokens; [] until both were
    measured."""
    one = [row for row in _either(rows, "backward") if (row.get("batch"), row.get("tokens")) == (1, 16384)]
    found = {
        row["case"]: row["tflops"] for row in one if row.get("tflops") and row.get("case") in ("grouped", "ancestor")
    }
    if len(found) < 2:
        return []
    return [{"cell": "grouped heads over others, 1 x 16384", "over_ungrouped": found["grouped"] / found["ancestor"]}]


def _both_ways(rows: Rows) -> float | None:
    """FlashAttention-2's time over ours, forward and backward together; None unless both were measured of both."""
    whole = [row for row in rows if row.get("ms") and row.get("flash_ms")]
    if sorted(row["direction"] for row in whole) != sorted(DIRECTIONS):
        return None
    return sum(row["flash_ms"] for row in whole) / sum(row["ms"] for row in whole)


def _part(results: Mapping[str, Rows], name: str, measured_with: str | None = None) -> Rows:
    """The rows of a part; one more, without figures, for what is missing if it failed before its end."""
    failed = {row["cell"] for row in results.get("failures", ())}
    return [*results.get(name, ()), *([{}] if (measured_with or name) in failed else [])]


def _of(rows: Rows, **wanted: object) -> Rows:
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def _either(rows: Rows, direction: str) -> Rows:
    """Those of a direction, and those that were to be of both when something came between."""
    return [row for row in rows if row.get("direction", direction) == direction]


@dataclass(frozen=True)
class Target:
    """A figure of some rows, the greatest or the least of which has to reach a goal."""

    what: str
    rows: Rows
    field: str
    goal: float
    sign: str  # of the goal: <, > or >=

    def holds(self, value: float) -> bool:
        """Whether a figure is as it has to be."""
        if self.sign == "<":
            return value < self.goal
        return value > self.goal if self.sign == ">" else value >= self.goal

    def measured(self) -> Rows:
        """The rows that have the figure, the worst first."""
        found = [row for row in self.rows if row.get(self.field) is not None]
        return sorted(found, key=lambda row: row[self.field], reverse=self.sign == "<")

    def verdict(self) -> dict[str, object]:
        """A target is met when every cell was measured, and missed when one of those measured misses it."""
        measured = self.measured()
        value = measured[0][self.field] if measured else None
        met = None if value is None or (self.holds(value) and len(measured) < len(self.rows)) else self.holds(value)
        goal, cells = f"{self.sign} {self.goal:g}", [len(measured), len(self.rows)]
        return {"target": self.what, "goal": goal, "value": value, "met": met, "cells": cells}


def _most(what: str, rows: Rows, field: str, goal: float) -> Target:
    """The greatest of a field against a goal that it must stay below."""
    return Target(what, rows, field, goal, "<")


def _least(what: str, rows: Rows, field: str, goal: float, beyond: bool = False) -> Target:
    """The least of a field against a goal that it must reach, or exceed."""
    return Target(what, rows, field, goal, ">" if beyond else ">=")
