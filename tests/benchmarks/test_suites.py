"""Figures and verdicts are computed, not written down; pages say what was not measured, and what would."""

import doctest
import importlib
import json

import pytest

from benchmarks import figures, machine, report, targets, timing
from benchmarks.gpu.choices import choices
from benchmarks.gpu.shares import with_shares
from benchmarks.growth import growth
from benchmarks.patterns import kept_share, strided
from benchmarks.proofs import nested_cover
from benchmarks.timing import alternate
from patterncc.analysis.costs.forecast import forecast
from patterncc.language import loads
from patterncc.passes import lower


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


DENSE_SHARE = "forward, 16k tokens and more: share of the best dense kernel's FLOP/s, least"
MACHINE = {"processor": "a processor", "cores": 2, "torch": "2.13", "triton": "3.9"}
DENSE = [
    {"what": "dense", "backend": name, "head_dim": 128, "direction": direction, "tflops": rate}
    for name, rate in (("flash", 400.0), ("cudnn", 500.0))
    for direction in ("forward", "backward")
]
LONG = {"case": "thin", "batch": 1, "tokens": 131072, "head_dim": 128, "block": 64, "density": 0.02}
GPU = {
    "ceilings": [{"what": "copy", "tb_per_s": 4.0}, *DENSE],
    "attention": [
        {**LONG, "direction": "forward", "ms": 1.0, "flash_ms": 30.0, "over_flash": 30.0, "tflops": 455.0},
        {**LONG, "direction": "backward", "ms": 3.0, "flash_ms": 60.0, "over_flash": 20.0, "tflops": 440.0},
        {**LONG, "tokens": 1 << 20, "note": "out of memory: 90 GiB"},
    ],
    "serving": [
        {
            "what": "decode",
            "case": "grouped",
            "requests": 64,
            "tokens": 16384,
            "tb_per_s": 3.6,
            "kept_bytes": 400_000_000,
        },
        {
            "what": "decode",
            "case": "apart",
            "requests": 16,
            "tokens": 32768,
            "tb_per_s": 3.2,
            "kept_bytes": 200_000_000,
        },
        {
            "what": "decode",
            "case": "grouped",
            "requests": 1,
            "tokens": 131072,
            "tb_per_s": 1.0,
            "kept_bytes": 8_000_000,
        },
    ],
    "host": [{"what": "attention", "host_us": 39.5}, {"what": "decode", "host_us": 55.0}],
    "peers": [
        {"peer": "flex", "direction": "forward", "over_peer": 1.4},
        {"peer": "flex", "direction": "backward", "over_peer": 1.1},
        {"peer": "dkernel", "note": "DKernel cannot be imported"},
    ],
    "first_call": [
        {"what": "nothing shipped", "caches": "empty", "import_s": 0.1, "forward_s": 2.0, "backward_s": 5.0}
    ],
}


def test_verdicts_of_the_gpu_suite():
    verdicts = {row["target"]: (row["value"], row["met"]) for row in targets.gpu(with_shares(GPU))}
    assert list(verdicts.values()) == [
        (455.0 / 500, None),  # of the best backend, forward and backward; the million tokens were not measured
        (440.0 / 500, None),
        (1.4, True),  # FlexAttention
        (1.1, False),
        (None, None),  # DKernel was not here
        (None, None),
        (None, None),  # nor were grouped heads measured
        (30.0, True),
        ((30.0 + 60.0) / (1.0 + 3.0), False),
        (0.8, False),  # the least of all decoding that keeps much
        (6.0, True),  # 8 MB at 1 and at 4 TB/s
        (39.5, True),
        (55.0, False),
        (None, None),
    ]


def test_grouped_heads_are_compared_with_ungrouped_ones_of_the_same_length():
    one = {"batch": 1, "tokens": 16384, "direction": "backward"}
    rows = [{**one, "case": "ancestor", "tflops": 300.0}, {**one, "case": "grouped", "tflops": 270.0}]
    rows.append({**one, "batch": 4, "case": "ancestor", "tflops": 400.0})
    [found] = [row for row in targets.gpu({"attention": rows}) if "grouped" in str(row["target"])]
    assert (found["value"], found["met"]) == (0.9, False)


def test_a_page_shows_figures_and_names_empty_cells(tmp_path):
    results = with_shares(GPU)
    report.save(tmp_path, "gpu", MACHINE, results, targets.gpu(results))
    report.render(tmp_path)
    page = (tmp_path / "gpu.md").read_text()
    assert "a processor, 2 cores; torch 2.13" in page
    assert "| decoding, 100 MB and more: share of the copy's bandwidth, least | >= 0.85 | 0.8 | not met |" in page
    assert "| thin | 1 | 131072 | backward |" in page and "0.88" in page
    assert "out of memory: 90 GiB" in page and "DKernel cannot be imported" in page


def test_the_family_to_be_taken_unasked_is_named():
    """By head dim and direction; of cells that compare a family with itself nothing is said."""
    cell = {"batch": 4, "tokens": 16384, "is_hopper": True}
    forward, backward = ({**cell, "direction": way, "unasked": way == "forward"} for way in ("forward", "backward"))
    rows = [
        {**forward, "case": "ancestor", "gluon_over_triton": 1.3},
        {**forward, "case": "block16", "gluon_over_triton": 1.1},
        {**forward, "case": "dim64", "gluon_over_triton": 0.8, "unasked": False},
        {**forward, "case": "dim256", "gluon_over_triton": 1.01, "unasked": False},
        {**backward, "case": "ancestor", "gluon_over_triton": 1.5},
        {**backward, "case": "grouped", "gluon_over_triton": 0.9},
        {**backward, "case": "dim64", "gluon_over_triton": 0.5, "unasked": True},
        {**backward, "case": "dim256", "gluon_over_triton": 1.0, "is_hopper": False},
        {"cell": "families: window, 1 x 32768", "note": "out of memory"},
    ]
    forward, backward = "IS_FASTER of launch/hopper.py", "BY_DEFAULT of launch/hopper_backward.py"
    wanted = [
        f"forward, head dim 64: triton, 1.25 times as fast in 1 cell: {forward} stays False",
        f"forward, head dim 128: gluon, 1.1 to 1.3 times as fast in 2 cells: {forward} stays True",
        f"forward, head dim 256: neither, gluon is 1.01 times as fast: {forward} stays",
        f"backward, head dim 64: triton, 2 times as fast in 1 cell: {backward} becomes False",
        "backward, head dim 128: gluon, 0.9 to 1.5 times as fast in 2 cells; slower in grouped, 4 x 16384: "
        f"{backward} becomes True",
    ]
    assert choices(rows) == wanted
    page = report.page("gpu", {"machine": MACHINE, "targets": [], "families": rows}, None)
    assert "## Which family\n\n" + "\n".join(f"* {line}" for line in wanted) + "\n" in page
    assert "Which family" not in report.page("gpu", {"machine": MACHINE, "targets": []}, None)


def test_the_readme_has_the_verdicts(tmp_path, monkeypatch):
    """Of a made-up run: each target with its goal, its figure and its verdict, between the markers and nowhere else."""
    readme = tmp_path / "README.md"
    readme.write_text(
        "above\n<!-- benchmarks cpu -->\n<!-- end -->\n<!-- benchmarks gpu -->\nold\n<!-- end -->\nbelow\n"
    )
    monkeypatch.setattr(report, "README", readme)
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    results = with_shares(GPU)
    report.save(tmp_path, "gpu", MACHINE | {"accelerator": "a GPU", "commit": "abc"}, results, targets.gpu(results))
    report.fill_readme()
    text = readme.read_text()
    assert text.startswith("above\n") and text.endswith("<!-- end -->\nbelow\n") and "old" not in text
    for line in (
        f"| {DENSE_SHARE} | >= 0.9 | 0.91 | of 1 of 2 cells |",
        "| forward: over FlexAttention, least | >= 1.4 | 1.4 | met |",
        "| backward: over FlexAttention, least | >= 1.5 | 1.1 | not met |",
        "| forward: over DKernel, least | >= 1.4 |  |  |",
        "| decoding, less than that: microseconds over the copy's, most | < 15 | 6 | met |",
        "| decode: microseconds of Python a call | < 40 | 55 | not met |",
        "Measured on a GPU; torch 2.13, triton 3.9; commit abc.",
    ):
        assert f"\n{line}\n" in text, line


def test_pictures_are_drawn_from_whatever_there_is(tmp_path):
    pytest.importorskip("matplotlib")
    for name, results in (("all", with_shares(GPU)), ("nothing", {})):
        picture = figures.draw("gpu", {"machine": MACHINE, **results}, tmp_path / f"{name}.png")
        assert picture is not None and picture.read_bytes().startswith(b"\x89PNG")
    assert figures.draw("cpu", {"machine": MACHINE}, tmp_path / "cpu.png") is None


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


@pytest.mark.parametrize("name", ["report", "gpu.shares", "gpu.choices", "loops", "growth"])
def test_examples_in_docstrings(name):
    done = doctest.testmod(importlib.import_module(f"benchmarks.{name}"))
    assert done.attempted and not done.failed
