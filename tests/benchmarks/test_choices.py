"""What results say of open constants: made-up ones, of which some cells are missing, wrong or hung."""

from __future__ import annotations

import pytest

from benchmarks.gpu.changes import VARIANTS
from benchmarks.gpu.choices import decisions
from benchmarks.gpu.selections import DECIDING
from tests.benchmarks.made_up import SMALL, families, family, fused, lines, of, present, steps

FASTER, BACKWARD = "IS_FASTER of launch/hopper.py", "BY_DEFAULT of launch/hopper_backward.py"
TABLES = "TABLES_BY_DEFAULT of launch/hopper.py"


def test_a_family_is_taken_where_it_is_faster_in_all_cells() -> None:
    """Sure where no cell's repeats reach the other one's, likely where one does or is slower, open within noise; rows
    that compare a family with itself, or work too small for it, say nothing of it."""
    rows = [row for row in families(1.3, 1.5, dim256=1.01) if row["case"] != "dim64"]
    rows = [row | {"triton_spread": 0.4} if row["case"] == "block16" else row for row in rows]
    rows += [family("families: dim64, 4 x 16384", way, 0.8) for way in ("forward", "backward")]
    rows += [family("families: window, 1 x 32768", "forward", 9.0, is_hopper=False)]
    rows += [{**family(SMALL, "forward", 5.0), "case": "of other code"}]
    found = {each.about: (each.now, each.becomes, each.sure) for each in decisions({"families": rows}, present)}
    expected = {
        f"forward, head dim 64: {FASTER}": ("False", "stays", "sure"),
        f"forward, head dim 128: {FASTER}": ("True", "stays", "likely"),
        f"forward, head dim 256: {FASTER}": ("False", "stays", "open"),
        f"backward, head dim 64: {BACKWARD}": ("False", "stays", "sure"),
        f"backward, head dim 128: {BACKWARD}": ("False", "becomes True", "likely"),
        f"forward, tables, head dim 128: {TABLES}": ("False", "becomes True", "sure"),
    }
    assert {about: found[about] for about in expected} == expected
    assert str(of({"families": rows}, "backward, head dim 128")).splitlines()[1:] == [
        "    gluon is 1.500 times as fast by the geometric mean",
        "    1.500 ± 0.003  families: ancestor, 4 x 16384",
        "    1.500 ± 0.602  families: block16, 4 x 16384",
        "    1.500 ± 0.003  families: grouped, 1 x 16384",
    ]


def test_the_lines_to_be_changed_are_said_whole() -> None:
    """A constant that several head dims share has one line for all that is sure of it."""
    results = {"families": families(1.3, 1.2), "variants": fused(1.2)}
    assert lines(results) == [
        "To be changed in codegen_templates",
        "launch/hopper.py: IS_FASTER = HEAD_DIM in (64, 128, 256)",
        "launch/hopper_backward.py: BY_DEFAULT = HEAD_DIM in (64, 128)",
        "launch/hopper_fused.py: FUSED_BY_DEFAULT = HEAD_DIM in (64, 128)",
        "launch/hopper.py: TABLES_BY_DEFAULT = True",
        "launch/hopper.py: LEAST_TILES = 1",
        "To be looked at, likely: nothing",
    ]
    slower = {"families": families(0.7, 0.7)}
    assert lines(slower)[1] == "launch/hopper.py: IS_FASTER = False"
    assert lines({})[0] == "To be changed in codegen_templates: nothing"


def test_what_hung_or_was_wrong_in_one_cell_is_off_however_fast_in_others() -> None:
    hung = "the process ended with -9 while it was measured: forward by gluon, head dim 128, blocks of 16"
    rows = [row for row in families(1.3, 1.3) if row["case"] != "block16"]
    rows += [{"cell": "families: block16, 4 x 16384", "case": "block16", "note": hung}]
    found = of({"families": rows}, "forward, head dim 128")
    assert (found.becomes, found.sure, found.line) == (
        "becomes False",
        "sure",
        f"{FASTER[-16:]}: IS_FASTER = HEAD_DIM in (64, 256)",
    )
    assert found.because[-1] == f"not measured: families: block16, 4 x 16384: {hung}"
    assert of({"families": rows}, "backward, head dim 128").becomes == "stays"
    wrong = [{"cell": "variants: dim64_fused", "note": "WRONG, so not timed: 3", "wrong": True}]
    results = {"families": families(1.3, 1.3), "variants": [*fused(1.2, "dim64"), *wrong]}
    assert "launch/hopper_fused.py: FUSED_BY_DEFAULT = HEAD_DIM == 128" in lines(results)


def test_a_cell_that_was_not_reached_makes_it_less_sure() -> None:
    rows = [row for row in families(1.3, 1.3) if row["case"] != "block16"]
    rows += [{"cell": "families: block16, 4 x 16384", "case": "block16", "note": "not measured: the time was over"}]
    found = of({"families": rows}, "backward, head dim 128")
    assert (found.becomes, found.sure) == ("becomes True", "likely")
    assert "launch/hopper_backward.py: BY_DEFAULT = HEAD_DIM in (64, 128)" in lines({"families": rows})[-2:]
    nothing = of({}, "backward, tables")
    assert nothing.sure == "not measured" and "it waits for: families: table, 4 x 16384" in str(nothing)


@pytest.mark.parametrize(("gluon", "ratio", "by_default", "one_kernel"), [
    (1.1, 1.2, ("becomes True", "sure"), ("becomes True", "sure")),
    (0.95, 1.2, ("becomes True", "likely"), ("becomes True", "likely")),  # 1.14 times triton's, together
    (0.8, 1.2, ("stays", "sure"), ("stays", "sure")),  # 0.96 times
    (1.1, 0.9, ("becomes True", "sure"), ("stays", "sure")),
])  # fmt: skip
def test_the_fused_backward_is_taken_with_its_family(
    gluon: float, ratio: float, by_default: tuple[str, str], one_kernel: tuple[str, str]
) -> None:
    results = {"families": families(1.3, gluon), "variants": fused(ratio)}
    for about, expected in (
        ("backward, head dim 128", by_default),
        ("backward in one kernel, head dim 128", one_kernel),
    ):
        found = of(results, about)
        assert (found.becomes, found.sure) == expected, str(found)


def test_tables_are_taken_by_a_direction_where_closed_forms_are() -> None:
    rows = families(1.3, 0.8, table=1.4)
    assert of({"families": rows}, "forward, tables").line == "launch/hopper.py: TABLES_BY_DEFAULT = True"
    assert of({"families": rows}, "backward, tables").becomes == "stays"
    rows = [row for row in families(1.3, 1.3) if (row["case"], row["direction"]) != ("table", "backward")]
    rows.append(family("families: table, 4 x 16384", "backward", 0.7))
    found = of({"families": rows}, "forward, tables")
    assert found.sure == "likely" and not found.line and "which differ" in found.because[-1]


def test_small_calls_have_a_constant_of_their_own() -> None:
    """As many tiles a processor as the measured call has: 16 heads, 2048 tokens, 132 processors, tiles of 128."""
    for ratio, becomes in ((1.5, "becomes 1"), (0.7, "stays")):
        found = of(
            {"families": [family(SMALL, "forward", ratio, gluon_host_ms=0.1, triton_host_ms=0.2)]}, "small calls"
        )
        assert found.becomes == becomes and "0.100 ms, triton's 0.200 ms" in found.because[-1]
    assert of({}, "small calls").sure == "not measured"


def test_a_line_is_changed_where_that_was_faster_in_all_that_it_was_changed_in() -> None:
    each = VARIANTS["ancestor_up"]
    row = {"cell": "variants: ancestor_up", "constant": each.constant, "direction": "forward", "is_hopper": True}
    for now, becomes, sure in (
        (1.1, "is taken", "sure"),
        (1.0, "stays as it is", "open"),
        (0.9, "stays as it is", "sure"),
    ):
        times = {"now_ms": now, "changed_ms": 1.0, "now_spread": 0.001, "changed_spread": 0.001}
        rows = [row | times | {"cell": f"variants: {name}"} for name in ("ancestor_up", "dense_up", "block16_up")]
        found = of({"variants": rows}, each.constant)
        assert (found.becomes, found.sure) == (becomes, sure)
        assert bool(found.line) == (now > 1)
        fewer = of({"variants": rows[:1]}, each.constant)
        assert (
            fewer.sure == ("likely" if sure == "sure" else sure) and "not measured: variants: dense_up" in fewer.because
        )
    said = lines({"variants": [row | {"now_ms": 1.1} for row in rows]})
    assert "kernels/hopper/produce.py: the line `n = n_all - 1 - i` becomes" in said
    assert "n = gl.where(n < far, far - 1 - n, n)" in said
    missing = of({"variants": [{"cell": row["cell"], "constant": each.constant, "note": "no memory"}]}, each.constant)
    assert missing.sure == "not measured" and "variants: dense_up" in missing.because[0]
    assert missing.because[1:] == ("variants: ancestor_up: no memory",)


def test_parts_are_merged_by_the_faster_way_of_steps_as_they_are_taken() -> None:
    """The first row of a cell is that: others are there to see up to how many programs one launch is faster."""
    cells = [{"cell": cell, "case": "grouped"} for cell in DECIDING["serving"] if cell.startswith("launches")]
    rows = [steps("launches", slow=slow, splits=n, **cell) for cell in cells for n, slow in ((12, 1.2), (64, 0.5))]
    found = of({"serving": rows}, "decoding: MOST_MERGED")
    assert (found.becomes, found.sure, found.line) == ("stays", "sure", "") and len(found.because) == 5
    found = of({"serving": list(reversed(rows))}, "decoding: MOST_MERGED")
    assert (found.becomes, found.sure) == (f"becomes {12 * 4 * 128}", "sure")  # programs, query heads and head dim
    rows = [steps("launches", slow=0.5, splits=64, **cell) for cell in cells]
    assert of({"serving": rows}, "decoding: MOST_MERGED").line == "launch/configs.py: MOST_MERGED = 0"
    assert of({"serving": rows[:1]}, "decoding: MOST_MERGED").sure == "likely"
    assert of({}, "decoding: MOST_MERGED").sure == "not measured"


def test_loads_are_shared_from_the_least_share_on_that_loses_nothing() -> None:
    first, second, third = (cell for cell in DECIDING["serving"] if cell.startswith("sharing"))
    rows = [steps("sharing", first, 1.5, saved=0.5), steps("sharing", second, 0.9, saved=0.26)]
    rows.append(steps("sharing", third, 1.2, saved=0.5))
    found = of({"serving": rows}, "decoding: LEAST_SAVED")
    assert (found.becomes, found.sure, found.line) == ("becomes 0.5", "sure", "launch/configs.py: LEAST_SAVED = 0.5")
    assert of({"serving": rows[:1] + rows[2:]}, "decoding: LEAST_SAVED").sure == "likely"
    assert of({"serving": rows[1:2]}, "decoding: LEAST_SAVED").becomes == "becomes 2: never"
