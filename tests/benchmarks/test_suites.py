"""The suites start, prepare, and run at toy size; figures and verdicts are computed, not written down."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report, targets
from benchmarks.lowering import growth
from benchmarks.patterns import kept_share, strided
from benchmarks.proofs import nested_cover
from benchmarks.timing import alternate
from patterncc.analysis.forecast import forecast
from patterncc.pipeline import lower
from patterncc.spec import loads

ROOT = Path(__file__).parents[2]


@pytest.mark.interpret
def test_the_gpu_suite_prepares_and_runs_at_toy_size(tmp_path):
    environment = {**os.environ, "PATTERNCC_CACHE_DIR": str(tmp_path / "cache")}
    for arguments in (["prepare"], ["gpu", "--toy"]):
        command = [sys.executable, "-m", "benchmarks", *arguments, "--packages", str(tmp_path / "packages")]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    for part in ("first call", "direction=forward", "direction=backward", "sequences=3", "requests=3", "requests=2"):
        assert part in done.stderr


def test_without_packages_the_gpu_suite_says_what_to_do(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "gpu", "--toy", "--packages", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "python -m benchmarks prepare" in done.stderr


@pytest.mark.parametrize("tokens", [4096, 4100])
def test_density_is_the_forecast(tokens):
    shape = {"local": 8, "stride": 16, "block": 64}
    pattern = loads(strided(name="p", heads=16, **shape))
    exact = forecast(lower(pattern), tokens).model["density"]
    near = kept_share(tokens, heads=16, **shape)
    assert near == pytest.approx(exact, rel=1e-12 if tokens % 64 == 0 else 0.05)


def test_a_nested_cover_covers_every_integer_once():
    classes = [(term.every, term.offset) for layout in nested_cover((7, 11)) for term in layout.terms[1:]]
    assert all(sum(n % m == r for m, r in classes) == 1 for n in range(8 * 7 * 11))


def test_calls_run_in_alternation():
    order = []
    alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, runs=2)
    assert order == ["a", "b", "a", "b", "a", "b"]


def test_growth_is_the_exponent():
    rows = [{"what": "table", "heads": 32, "block": 64, "tokens": n, "seconds": n**2 * 1e-9} for n in (1024, 8192)]
    assert growth(rows) == [{"what": "table", "tokens": [1024, 8192], "exponent": 2.0}]


def test_what_was_not_measured_has_no_verdict():
    assert all(row["met"] is None for row in (*targets.cpu({}), *targets.gpu({})))
    row = {"direction": "forward", "tokens": 4096, "dtype": "fp32", "share_of_ideal": 0.5, "speedup": 2.0}
    verdicts = {r["target"]: r["met"] for r in targets.cpu({"attention": [row]})}
    assert verdicts["CPU forward, fp32, 4k to 32k: share of ideal, least"] is False
    assert verdicts["CPU forward over dense, least"] is True


def test_an_unmeasured_suite_is_a_table_of_empty_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    assert all(
        line.endswith("|  |  |")
        for line in report.table("gpu").splitlines()
        if line.startswith("| ") and "128k" in line
    )
