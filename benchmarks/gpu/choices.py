"""Which family of kernels each direction and head dim should take unasked: computed from the rows of `families`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.gpu.cases import by_name

CONSTANTS = {"forward": ("IS_FASTER", "launch/hopper.py"), "backward": ("BY_DEFAULT", "launch/hopper_backward.py")}
TABLES = "TABLES_BY_DEFAULT", "launch/hopper.py"  # of both directions, where a pattern's index map is a table
CLEAR = 1.02  # how much faster, by the geometric mean: less is noise


def choices(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each direction, form of index map and head dim that was measured with both families: the faster one,
    by how much, in how many cells, and whether the constant that chooses has to change.

    >>> row = {"case": "dim64", "direction": "forward", "is_hopper": True, "unasked": False}
    >>> for line in choices([row | {"gluon_over_triton": ratio} for ratio in (1.2, 1.5)]):
    ...     print(line)
    forward, head dim 64: gluon, 1.2 to 1.5 times as fast in 2 cells: IS_FASTER of launch/hopper.py becomes True
    """
    found: dict[tuple[str, bool, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row.get("gluon_over_triton") and row.get("is_hopper") and "unasked" in row:
            case = by_name(row["case"])
            found.setdefault((row["direction"], case.plan == "table", case.head_dim), []).append(row)
    return [_line(*key, found[key]) for key in sorted(found, key=lambda key: (key[0] == "backward", *key[1:]))]


def _line(direction: str, is_table: bool, head_dim: int, rows: Sequence[Mapping[str, Any]]) -> str:
    ratios = [row["gluon_over_triton"] for row in rows]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    faster = next((name for name, ratio in (("gluon", mean), ("triton", 1 / mean)) if ratio > CLEAR), None)
    constant, file = TABLES if is_table else CONSTANTS[direction]
    what = f"{direction}, {'tables, ' * is_table}head dim {head_dim}"
    where = f"{constant} of {file}"
    if faster is None:
        return f"{what}: neither, gluon is {mean:.3g} times as fast: {where} stays"
    by = [ratio if faster == "gluon" else 1 / ratio for ratio in ratios]
    lost = [f"{row['case']}, {row['batch']} x {row['tokens']}" for row, x in zip(rows, by, strict=True) if x < 1]
    span = f"{min(by):.3g}" if len(by) == 1 else f"{min(by):.3g} to {max(by):.3g}"
    said = f"{span} times as fast in {len(by)} cell{'s' * (len(by) > 1)}"
    if lost:
        said += f"; slower in {'; '.join(lost)}"
    is_wanted, is_unasked = faster == "gluon", rows[0]["unasked"]
    verdict = "stays" if is_wanted == is_unasked else "becomes"
    return f"{what}: {faster}, {said}: {where} {verdict} {is_wanted}"
