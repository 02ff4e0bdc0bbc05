"""Figures and verdicts are computed, not written down; pages say what was not measured, and what would."""

import doctest
import importlib
import json

import pytest

from benchmarks import machine, report, targets, timing
from benchmarks.growth import growth
from benchmarks.patterns import kept_share, strided
from benchmarks.proofs import nested_cover
from benchmarks.timing import alternate
from patterncc.analysis.costs.forecast import forecast
from patterncc.language import loads
from patterncc.passes import lower

MACHINE = {"processor": "a processor", "cores": 2, "torch": "2.13", "triton": "3.9"}


@pytest.mark.parametrize("tokens", [4096, 4100])
def test_density_is_the_forecast(tokens):
    shape = {"local": 8, "stride": 16, "block": 64}
    pattern = loads(strided(name="p", heads=16, **shape))
    exact = forecast(lower(pattern), tokens).model["density"]
    assert kept_share(tokens, heads=16, **shape) == pytest.approx(exact, rel=1e-12)


def test_a_nested_cover_covers_every_integer_once():
    classes = [(term.every, term.offset) for layout in nested_cover((7, 11)) for term in layout.terms[1:]]
    assert all(sum(n % m == r for m, r in classes) == 1 for n in range(8 * 7 * 11))


def test_calls_run_in_alternation():
    order = []
    alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, runs=2)
    assert order == ["a", "b", "a", "b", "a", "b"]


def lowered(seconds):
    lengths = (1024, 8192, 65536)
    return [{"what": "table", "heads": 32, "block": 64, "tokens": n, "seconds": seconds(n)} for n in lengths]


def test_long_calls_run_twice_and_very_long_ones_once(monkeypatch):
    monkeypatch.setattr(timing, "PAUSE_S", 0)
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    lasting = {"short": 1.0, "long": 6.0, "very long": 60.0}

    def call(seconds):
        clock[0] += seconds

    calls = {name: (lambda seconds=seconds: call(seconds)) for name, seconds in lasting.items()}
    found = alternate(calls, runs=5, limit_s=1000)
    assert {name: sample.runs for name, sample in found.items()} == {"short": 5, "long": 2, "very long": 1}
    assert {name: sample.wall_s for name, sample in found.items()} == lasting
    calls["quick"] = lambda: call(0.25)
    found = alternate(calls, runs=5, limit_s=3)  # one turn takes as much
    assert {name: sample.runs for name, sample in found.items()} == {"quick": 5, "short": 2, "long": 2, "very long": 1}


def test_growth_is_the_exponent():
    (law,) = growth(lowered(lambda n: n**2 * 1e-9))
    assert law["what"] == "table" and law["quantity"] == "seconds" and law["points"] == 3
    assert law["exponent"] == law["at_the_end"] == 2.0 and law["r2"] == law["off_by_at_most"] == 1.0


def test_what_is_no_power_law_has_a_bad_fit():
    (law,) = growth(lowered(lambda n: 1.0 + (n > 8192) * 1000.0))
    assert law["r2"] < 0.8 and law["off_by_at_most"] > 5 and law["at_the_end"] > 3
    assert not growth(lowered(lambda n: 1.0)[:2])  # through two points goes every law


def test_what_takes_no_longer_has_no_variance_to_explain():
    (law,) = growth(lowered(lambda n: 0.001 * (1.01 if n == 8192 else 1)))
    assert law["exponent"] == 0 and law["r2"] is None and law["off_by_at_most"] <= 1.01


def test_what_was_not_measured_has_no_verdict():
    assert all(row["met"] is None for row in (*targets.cpu({}), *targets.gpu({})))
    row = {"direction": "forward", "tokens": 4096, "dtype": "fp32", "share_of_ideal": 0.5, "speedup": 2.0}
    verdicts = {r["target"]: r["met"] for r in targets.cpu({"attention": [row]})}
    assert verdicts["CPU forward, fp32, 4k to 32k: share of ideal, least"] is False
    assert verdicts["CPU forward over dense, least"] is True


def test_what_a_processor_multiplies_itself_has_a_target_of_its_own():
    """So that a figure of a processor without bf16 instructions is not read as one of those with them."""
    row = {"direction": "forward", "tokens": 4096, "dtype": "bf16", "speedup": 2.0}
    rows = [{**row, "share_of_ideal": 0.9, "products": "fp32"}, {**row, "share_of_ideal": 0.45, "products": "own"}]
    share = "CPU forward, bf16, 4k to 32k: share of ideal, least"
    for measured, expected in ((rows, (0.9, 0.45)), (rows[:1], (0.9, None)), (rows[1:], (None, 0.45))):
        found = {r["target"]: r for r in targets.cpu({"attention": measured})}
        assert (found[share]["value"], found[targets.OWN]["value"]) == expected
        assert found[targets.OWN]["met"] is (None if expected[1] is None else False)


def test_the_suite_says_which_instructions_it_saw(tmp_path):
    server = "processor : 0\nmodel name : Xeon\nflags : fpu avx2 fma avx512f avx512_bf16 amx_tile amx_bf16\n"
    for text, seen in (
        (server, ["AVX2", "FMA", "AVX-512", "AVX-512 bf16", "AMX", "AMX bf16"]),
        ("Features : fp asimd asimdhp bf16\n", ["NEON fp16", "NEON bf16"]),
        ("", []),
    ):
        (tmp_path / "cpuinfo").write_text(text)
        assert machine.features(tmp_path / "cpuinfo") == seen
    assert machine.features(tmp_path / "none") == []
    assert machine.describe()["cpu_features"] == machine.features()
    said = report.where({**MACHINE, "cpu_features": ["AVX2", "FMA"]})
    assert said.startswith("Measured on a processor (AVX2, FMA), 2 cores;")
    assert "no vector instructions seen" in report.where({**MACHINE, "cpu_features": []})


def test_what_was_measured_in_part_is_met_by_nothing_but_can_be_missed():
    row = {"direction": "forward", "tokens": 4096, "dtype": "fp32", "share_of_ideal": 0.9, "speedup": 0.5}
    share, dense = "CPU forward, fp32, 4k to 32k: share of ideal, least", "CPU forward over dense, least"
    for results in (
        {"attention": [row, {**row, "share_of_ideal": None, "speedup": None, "note": "no time was left"}]},
        {"attention": [row], "failures": [{"cell": "attention", "note": "WrongError: it is wrong"}]},
    ):
        found = {r["target"]: r for r in targets.cpu(results)}
        assert (found[share]["value"], found[share]["met"], found[share]["cells"]) == (0.9, None, [1, 2])
        assert found[dense]["met"] is False
        assert "| 0.9 | of 1 of 2 cells |" in "\n".join(report.target_rows([found[share]]))
    assert {r["target"]: r["met"] for r in targets.cpu({"attention": [row]})}[share] is True


def test_an_unmeasured_suite_is_a_table_of_empty_cells(tmp_path):
    assert all(
        line.endswith("|  |  |")
        for line in report.table("gpu", tmp_path).splitlines()
        if line.startswith("| ") and "128k" in line
    )


def test_without_results_the_report_says_what_measures(tmp_path, capsys):
    report.render(tmp_path)
    said = capsys.readouterr().out
    assert (
        "gpu: nothing was measured. `python -m benchmarks gpu` measures" in said
        and "`python -m benchmarks cpu`" in said
    )
    assert not list(tmp_path.iterdir())


def test_damaged_results_are_named(tmp_path):
    (tmp_path / "gpu.json").write_text('{"machine": ')
    with pytest.raises(SystemExit, match=r"gpu\.json is not as `python -m benchmarks gpu` wrote it"):
        report.render(tmp_path)


def test_results_are_whole_or_absent(tmp_path, monkeypatch):
    report.save(tmp_path, "gpu", MACHINE, {"attention": []}, [])
    monkeypatch.setattr(json, "dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.save(tmp_path, "gpu", MACHINE, {"attention": []}, [])
    monkeypatch.undo()
    assert report.saved("gpu", tmp_path) == {"machine": MACHINE, "targets": [], "attention": []}


@pytest.mark.parametrize("name", ["report", "gpu.shares", "gpu.ratios", "gpu.conduct", "gpu.device", "loops", "growth"])
def test_examples_in_docstrings(name):
    done = doctest.testmod(importlib.import_module(f"benchmarks.{name}"))
    assert done.attempted and not done.failed
