"""What `python -m benchmarks decide` reads from results: made-up ones, of which some cells are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import counters, decide, report
from benchmarks.gpu.changes import VARIANTS
from benchmarks.gpu.choices import Decision, decisions
from tests.benchmarks.conftest import benchmarks
from tests.benchmarks.test_gpu_pages import DENSE
from tests.benchmarks.test_suites import MACHINE


def present(constant: str, file: str) -> str:
    return f"<{constant}>"


def family(case: str, direction: str, ratio: float, spread: float = 0.001, **more: Any) -> dict[str, Any]:
    """A row of `families`, in which the one in Gluon is so many times as fast."""
    times = {"triton_ms": ratio, "gluon_ms": 1.0, "triton_spread": spread, "gluon_spread": spread}
    what = {"cell": f"families: {case}, {direction}", "case": case, "direction": direction}
    return {**what, "is_hopper": True, "unasked": direction == "forward", "is_large": True, **times, **more}


def of(results: dict[str, Any], about: str) -> Decision:
    [found] = [each for each in decisions(results, present) if each.about.startswith(about)]
    return found


def test_a_family_is_taken_where_it_is_faster_in_all_cells() -> None:
    """Sure where no cell's repeats reach the other one's, likely where one does or is slower, open within noise; rows
    that compare a family with itself, or work too small for it, say nothing of it."""
    rows = [
        family("ancestor", "forward", 1.3),
        family("block16", "forward", 1.1, 0.2),
        family("dim64", "forward", 0.8, unasked=False),
        family("dim256", "forward", 1.01, unasked=False),
        family("ancestor", "backward", 1.5),
        family("grouped", "backward", 1.4),
        family("ancestor", "backward", 0.3, is_large=False),
        family("dim64", "backward", 0.5, unasked=True),
        family("table", "forward", 1.4, unasked=False),
        family("dim256", "backward", 9.0, is_hopper=False),
        {"cell": "families: window, 1 x 32768", "case": "window", "note": "out of memory"},
        {**family("ancestor", "forward", 5.0), "case": "of other code"},
    ]
    results = {"families": rows}
    found = {
        each.about: (each.now, each.becomes, each.sure) for each in decisions(results, present) if ":" in each.about
    }
    forward, backward = "IS_FASTER of launch/hopper.py", "BY_DEFAULT of launch/hopper_backward.py"
    tables = "TABLES_BY_DEFAULT of launch/hopper.py"
    expected = {
        f"forward, head dim 64: {forward}": ("False", "stays", "sure"),
        f"forward, head dim 128: {forward}": ("True", "stays", "likely"),
        f"forward, head dim 256: {forward}": ("False", "stays", "open"),
        f"backward, head dim 64: {backward}": ("True", "becomes False", "sure"),
        f"backward, head dim 128: {backward}": ("False", "becomes True", "sure"),
        f"forward, tables, head dim 128: {tables}": ("False", "becomes True", "sure"),
        f"backward, tables, head dim 128: {tables}": ("<TABLES_BY_DEFAULT>", "stays", "not measured"),
    }
    assert {about: found[about] for about in expected} == expected
    text = str(of(results, "backward, head dim 128"))
    assert text.splitlines()[1:] == [
        "    gluon is 1.449 times as fast by the geometric mean",
        "    1.500 ± 0.003  families: ancestor, backward",
        "    1.400 ± 0.003  families: grouped, backward",
    ]
    assert "it waits for: families: table, 4 x 16384" in str(of(results, "backward, tables"))


def test_small_calls_have_a_constant_of_their_own() -> None:
    small = {"is_large": False, "unasked": True}
    for ratio, becomes in ((1.5, "falls"), (0.7, "stays")):
        assert of({"families": [family("ancestor", "forward", ratio, **small)]}, "small calls").becomes == becomes
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
        found = of({"variants": [row | times]}, each.constant)
        assert (found.becomes, found.sure) == (becomes, sure)
    fused = of({"variants": [row | times | {"constant": VARIANTS["ancestor_fused"].constant}]}, "FUSED_BY_DEFAULT")
    assert (fused.becomes, fused.sure) == (becomes, sure)
    missing = of({"variants": [{"cell": row["cell"], "constant": each.constant, "note": "WRONG"}]}, each.constant)
    assert missing.sure == "not measured" and "variants: dense_up" in missing.because[0]
    assert missing.because[1:] == ("variants: ancestor_up: WRONG",)


def steps(what: str, cell: str, slow: float, **more: Any) -> dict[str, Any]:
    names = ("two", "one") if what == "launches" else ("apart", "shared")
    row = {f"{names[0]}_graph_ms": slow, f"{names[1]}_graph_ms": 1.0, f"{names[0]}_over_{names[1]}": slow}
    return {"cell": cell, "what": what, **row, **more, **{f"{name}_graph_spread": 0.001 for name in names}}


def test_parts_are_merged_by_the_faster_way_of_steps_as_they_are_taken() -> None:
    """The first row of a cell is that: more programs are there to be seen."""
    rows = [steps("launches", "a", 1.2, splits=12), steps("launches", "a", 0.5, splits=64)]
    found = of({"serving": rows}, "decoding: MOST_MERGED")
    assert (found.becomes, found.sure) == ("stays", "sure") and len(found.because) == 3
    found = of({"serving": list(reversed(rows))}, "decoding: MOST_MERGED")
    assert (found.becomes, found.sure) == ("becomes 0", "sure")
    assert of({}, "decoding: MOST_MERGED").sure == "not measured"


def test_loads_are_shared_from_the_least_share_on_that_loses_nothing() -> None:
    rows = [steps("sharing", "a", 1.5, saved=0.5), steps("sharing", "b", 0.9, saved=0.26)]
    assert of({"serving": rows}, "decoding: LEAST_SAVED").becomes == "rises above 0.260"
    assert of({"serving": rows[:1]}, "decoding: LEAST_SAVED").becomes == "stays"
    assert of({"serving": rows[1:]}, "decoding: LEAST_SAVED").becomes == "becomes 2: never"


WHOLE = {"case": "ancestor", "batch": 4, "tokens": 16384, "head_dim": 128, "block": 64, "ms": 1.0, "spread": 0.004}
RESULTS = {
    "ceilings": [{"cell": "copy", "what": "copy", "tb_per_s": 4.0}, *DENSE],
    "attention": [
        {**WHOLE, "cell": "ancestor, 4 x 16384", "direction": "forward", "tflops": 400.0},
        {**WHOLE, "cell": "ancestor, 4 x 16384", "direction": "backward", "tflops": 450.0},
    ],
    "host": [
        {"cell": "host", "what": "attention", "host_us": 30.0},
        {"cell": "host", "what": "decode", "host_us": 50.0},
    ],
    "peers": [{"cell": "dkernel: ancestor, 4 x 16384", "peer": "dkernel", "note": "DKernel cannot be imported"}],
}


def test_goals_are_met_missed_or_not_measured_with_their_numbers() -> None:
    said = "\n".join(decide.goals(decide.completed(decide.with_shares(RESULTS))))
    for text in (
        "MISSED: forward, 16k tokens and more: share of the best dense kernel's FLOP/s, least >= 0.9\n"
        "    0.8 ± 0.4 %  ancestor, 4 x 16384, forward\n    not measured: ",
        '\n    what it waits for: python -m benchmarks profile --cell "ancestor, 4 x 16384" --direction forward\n',
        "met in 1 of ",
        "\n    0.9 ± 0.4 %  ancestor, 4 x 16384, backward\n",
        "not measured: forward: over DKernel, least >= 1.4\n    not measured: dkernel: ancestor, 4 x 16384, and ",
        "met: attention: microseconds of Python a call < 40\n    30  host, attention\n",
        "MISSED: decode: microseconds of Python a call < 40\n    50  host, decode\n",
    ):
        assert text in said, text
    assert said.count("what it waits for") == 1  # what Python takes is no kernel's


def test_two_calls_are_read_together(tmp_path: Path) -> None:
    """Each result of one, the later one's where both have a cell; the constants as they are here."""
    for name, rows in (("one", RESULTS), ("two", {"families": [family("dim64", "backward", 1.5)], **RESULTS})):
        report.save(tmp_path / name, "gpu", MACHINE, rows, [])
    merged = decide.read([tmp_path / "one", tmp_path / "two" / "gpu.json"])
    assert {name: merged[name] for name in RESULTS} == RESULTS and len(merged["families"]) == 1
    done = benchmarks("decide", str(tmp_path / "one"), str(tmp_path / "two"))
    assert done.returncode == 0 and "now 1 / 8: stays (not measured)" in done.stdout, done.stderr
    assert "BY_DEFAULT of launch/hopper_backward.py, now False: becomes True (sure)" in done.stdout


def test_what_are_no_results_is_said_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "gpu.json").write_text("[]")
    (tmp_path / "rows.json").write_text('{"machine": {}, "families": [1]}')
    for file in (tmp_path, tmp_path / "nothing.json", tmp_path / "rows.json"):
        done = benchmarks("decide", str(file))
        assert done.returncode == 1 and "is not what" in done.stderr and "Traceback" not in done.stderr


def test_a_page_has_the_constants_that_were_measured() -> None:
    document = {"machine": MACHINE, "targets": [], "families": [family("dim64", "backward", 1.5)]}
    page = report.page("gpu", document, None)
    assert "## Open constants\n" in page and "becomes True (sure)" in page and "not measured" not in page
    assert "Open constants" not in report.page("gpu", {"machine": MACHINE, "targets": []}, None)


PROFILER = """\
#!/bin/sh
echo "counters of $*" | cut -c 1-400
case "$*" in *ancestor*) exit 0;; esac
sleep 600
"""


def test_the_profiler_is_asked_for_the_cells_that_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Clocks are left alone; a cell that takes too long is ended, and what does not fit is named."""
    wanted = counters.missing_their_goals({"machine": MACHINE, **RESULTS})
    assert wanted == [("ancestor, 4 x 16384", "forward")]
    (tmp_path / "ncu").write_text(PROFILER)
    (tmp_path / "ncu").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(counters, "LEAST_S", 1.0)
    more = [*wanted, ("block16, 1 x 16384", "forward"), ("grouped, 1 x 16384", "backward")]
    assert counters.profile(tmp_path, more, 3.0, None, toy=False) == counters.LATE
    said = capsys.readouterr().out
    assert "--clock-control none" in said and "--section WarpStateStats" in said
    assert "it was ended after" in said and "not profiled" in said


def test_without_the_profiler_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="no ncu on PATH"):
        counters.profile(tmp_path, [("ancestor, 4 x 16384", "forward")], 3.0, None, toy=False)
    with pytest.raises(SystemExit, match="is no cell"):
        counters.known("host")


@pytest.mark.parametrize("name", [name for name, each in VARIANTS.items() if each.file])
def test_each_line_is_there_once(name: str, tmp_path: Path) -> None:
    """In the templates, which packages have word for word but for their pattern; a line that is not there is said."""
    variant = VARIANTS[name]
    template = Path(__file__).parents[2] / "codegen_templates"
    file = tmp_path / variant.file
    file.parent.mkdir(parents=True)
    file.write_text((template / variant.file).read_text())
    before = file.read_text()
    variant.change(tmp_path)
    assert file.read_text() != before
    compile(file.read_text(), str(file), "exec")
    file.write_text("nothing of it\n")
    with pytest.raises(ValueError, match="0 lines"):
        variant.change(tmp_path)
