"""The targets, each with its figure and whether it is met; a target that nothing measured has no verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]
DIRECTIONS = ("forward", "backward")
SHARES = {"fp32": 0.8, "bf16": 0.65}  # of the ideal, on the CPU


def cpu(results: Mapping[str, Rows]) -> list[dict[str, object]]:
    """One row a target of the CPU suite."""
    startup = {row["what"]: row.get("wall_s") for row in results.get("startup", ())}
    lowering = results.get("lowering", ())
    proofs, gallery = results.get("proofs", ()), results.get("gallery", ())
    helped = _named(results.get("imports", ()), "--help")
    loops = results.get("loops", ())
    forward = [row for row in results.get("attention", ()) if row["direction"] == "forward"]
    closed = [r for r in lowering if (r["what"], r["heads"], r["tokens"]) == ("closed form", 32, 1 << 20)]
    table = [r for r in lowering if (r["what"], r["heads"], r["tokens"], r["block"]) == ("table", 32, 1 << 20, 64)]
    far = [r for r in forward if r["tokens"] >= 4096]
    return [
        _below("start-up: --help, warm, seconds", startup.get("--help"), 0.15),
        _below("the same: torch imported (0 no, 1 yes)", float("torch_ms" in helped[0]) if helped else None, 1),
        _below("YAML to importable package, seconds (torch imported)", startup.get("load, first time"), 0.3),
        _below("the same a second time, seconds", startup.get("load, second time"), 0.05),
        _below("lowering 32 heads, 1M tokens, closed form, seconds", _worst(max, closed, "seconds"), 0.010),
        _below("the same, bytes", _worst(max, closed, "bytes"), 1e6),
        _below("the same as a table, block 64, seconds", _worst(max, table, "seconds"), 2.0),
        _below("slowest proof in the gallery, seconds", _worst(max, gallery, "wall_s"), 0.005),
        _below("slowest proof of the adversarial set, seconds", _worst(max, proofs, "wall_s"), 1.0),
        *(
            _above(
                f"CPU forward, {dtype}, 4k to 32k: share of ideal, least", _least(far, dtype, "share_of_ideal"), goal
            )
            for dtype, goal in SHARES.items()
        ),
        *(
            _below(
                f"sm_90, {name}: instructions per kept key, times dense",
                _worst(max, _named(loops, name), "to_dense"),
                1.1,
            )
            for name in ("block 128", "block 16")
        ),
        _above("CPU forward over compiled flex_attention, least", _worst(min, forward, "over_flex"), 1.0),
        _above("CPU forward over dense, least", _worst(min, forward, "speedup"), 1.0),
    ]


def gpu(results: Mapping[str, Rows]) -> list[dict[str, object]]:
    """One row a target of the GPU suite. Below 16k tokens no dense kernel reaches its own ceiling, so shares of it are
    asked of longer sequences."""
    rows, peers = results.get("attention", ()), results.get("peers", ())
    far = [row for row in rows if row.get("tokens", 0) >= 16384]
    thin = [row for row in rows if row.get("tokens") == 131072 and row.get("density", 1) <= 1 / 32]
    decoding = [row for row in results.get("serving", ()) if row.get("what") == "decode"]
    return [
        *(
            _above(
                f"{direction}, 16k tokens and more: share of the best dense kernel's FLOP/s, least",
                _worst(min, _of(far, direction=direction), "share_of_dense"),
                0.9,
            )
            for direction in DIRECTIONS
        ),
        *(
            _above(
                f"{direction}: over {name}, least",
                _worst(min, _of(peers, peer=peer, direction=direction), "over_peer"),
                goal,
            )
            for name, peer, goal in (("FlexAttention", "flex", 1.3), ("DKernel", "dkernel", 2.0))
            for direction in DIRECTIONS
        ),
        _beyond(
            "128k tokens, 1/32 or less: forward over FlashAttention-2",
            _worst(min, _of(thin, direction="forward"), "over_flash"),
            25.3,
        ),
        _beyond("the same, forward and backward", _both_ways(thin), 25.3),
        _above("decoding: share of the copy's bandwidth, least", _worst(min, decoding, "share_of_copy"), 0.8),
    ]


def _both_ways(rows: Rows) -> float | None:
    """FlashAttention-2's time over ours, forward and backward together; None unless both were measured of both."""
    whole = [row for row in rows if row.get("ms") and row.get("flash_ms")]
    if sorted(row["direction"] for row in whole) != sorted(DIRECTIONS):
        return None
    return sum(row["flash_ms"] for row in whole) / sum(row["ms"] for row in whole)


def _of(rows: Rows, **wanted: object) -> Rows:
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def _named(rows: Rows, name: str) -> Rows:
    return [row for row in rows if row["what"] == name]


def _least(rows: Rows, dtype: str, field: str) -> float | None:
    return _worst(min, [r for r in rows if r["dtype"] == dtype], field)


def _worst(pick: Callable[[Iterable[float]], float], rows: Rows, field: str) -> float | None:
    values = [row[field] for row in rows if row.get(field) is not None]
    return pick(values) if values else None


def _below(what: str, value: float | None, goal: float) -> dict[str, object]:
    return {"target": what, "goal": f"< {goal:g}", "value": value, "met": None if value is None else value < goal}


def _above(what: str, value: float | None, goal: float) -> dict[str, object]:
    return {"target": what, "goal": f">= {goal:g}", "value": value, "met": None if value is None else value >= goal}


def _beyond(what: str, value: float | None, goal: float) -> dict[str, object]:
    return {"target": what, "goal": f"> {goal:g}", "value": value, "met": None if value is None else value > goal}
