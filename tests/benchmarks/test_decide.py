"""What `python -m benchmarks decide` says of goals, and what it reads: made-up results, some cells of them missing."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks import counters, decide, report
from benchmarks.gpu.changes import VARIANTS
from tests.benchmarks.conftest import benchmarks
from tests.benchmarks.made_up import family
from tests.benchmarks.test_gpu_pages import DENSE
from tests.benchmarks.test_suites import MACHINE

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


def test_a_goal_about_several_cells_is_named_by_what_it_is_about() -> None:
    row = {**WHOLE, "batch": 1, "case": "thin", "tokens": 131072, "density": 0.02, "flash_ms": 30.0}
    both = [{**row, "direction": direction, "cell": "thin, 1 x 131072"} for direction in ("forward", "backward")]
    said = "\n".join(decide.goals({"attention": both}))
    assert "the same, forward and backward > 25.3\n    30  forward and backward, 1 x 131072\n" in said


def test_two_calls_are_read_together(tmp_path: Path) -> None:
    """Each result of one, the later one's where both have a cell; the constants as they are here."""
    for name, rows in (
        ("one", RESULTS),
        ("two", {"families": [family("families: dim64, 4 x 16384", "backward", 1.5)], **RESULTS}),
    ):
        report.save(tmp_path / name, "gpu", MACHINE, rows, [])
    merged = decide.read([tmp_path / "one", tmp_path / "two" / "gpu.json"])
    assert {name: merged[name] for name in RESULTS} == RESULTS and len(merged["families"]) == 1
    done = benchmarks("decide", str(tmp_path / "one"), str(tmp_path / "two"))
    assert done.returncode == 0 and "now 1 / 8: stays (not measured)" in done.stdout, done.stderr
    assert "BY_DEFAULT of launch/hopper_backward.py, now False: becomes True (sure)" in done.stdout
    assert "\n    launch/hopper_backward.py: BY_DEFAULT = HEAD_DIM == 64\n" in done.stdout


def test_what_are_no_results_is_said_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "gpu.json").write_text("[]")
    (tmp_path / "rows.json").write_text('{"machine": {}, "families": [1]}')
    for file in (tmp_path, tmp_path / "nothing.json", tmp_path / "rows.json"):
        done = benchmarks("decide", str(file))
        assert done.returncode == 1 and "is not what" in done.stderr and "Traceback" not in done.stderr


def test_a_page_has_the_constants_that_were_measured() -> None:
    document = {"machine": MACHINE, "targets": [], "families": [family("families: dim64, 4 x 16384", "backward", 1.5)]}
    page = report.page("gpu", document, None)
    assert "## Open constants\n" in page and "becomes True (sure)" in page and "not measured" not in page
    assert "Open constants" not in report.page("gpu", {"machine": MACHINE, "targets": []}, None)


PROFILER = """\
#!/bin/sh
echo "counters of $*" | cut -c 1-400
case "$*" in *ancestor*) exit 0;; esac
sleep 600 & echo $! > started
wait
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
    monkeypatch.chdir(tmp_path)
    more = [*wanted, ("block16, 1 x 16384", "forward"), ("grouped, 1 x 16384", "backward")]
    assert counters.profile(tmp_path, more, 3.0, None, toy=False) == counters.LATE
    said = capsys.readouterr().out
    assert "--clock-control none" in said and "--section WarpStateStats" in said
    assert "it was ended after" in said and "not profiled" in said
    assert said.count("counters of") == 2  # what one that was ended had printed, too
    stat, begin = Path(f"/proc/{(tmp_path / 'started').read_text().strip()}/stat"), time.monotonic()
    while is_running(stat):  # what is killed ends a moment later
        assert time.monotonic() - begin < 20
        time.sleep(0.01)


def is_running(stat: Path) -> bool:
    """Whether the process of /proc/PID/stat is there, and is not one that has ended and nobody has asked of."""
    with suppress(OSError):
        return stat.read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


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
