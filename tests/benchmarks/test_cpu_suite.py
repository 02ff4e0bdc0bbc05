"""The CPU suite's own behaviour: what is measured stays, whatever goes wrong, and every page shows every part."""

import json
import time

import pytest

from benchmarks import __main__ as command
from benchmarks import conduct_cpu, report, startup
from benchmarks.pages import ABOUT, PAGES
from benchmarks.proofs import gallery
from tests.benchmarks.conftest import benchmarks

PROOF = {"what": "strides 8", "heads": 8, "period": 8, "holds": True, "runs": 5, "wall_s": 0.1}
EARLIER = '{"machine": {"processor": "p", "cores": 2, "torch": "2", "triton": "3"}, "targets": []}'


@pytest.fixture
def measures(monkeypatch):
    """Parts that take no time: what each yields is set by the test."""
    rows = {part: lambda folder, deadline: iter(()) for part in conduct_cpu.PARTS}
    monkeypatch.setattr(conduct_cpu, "MEASURES", rows)
    return rows


def proofs(folder, deadline):
    yield "proofs", PROOF


def failing(folder, deadline):
    yield "proofs", PROOF
    raise RuntimeError("no compiler\nand more")


def stopped(folder, deadline):
    yield "proofs", PROOF
    raise KeyboardInterrupt


def test_results_replace_earlier_ones_when_all_is_measured(measures, tmp_path, capsys):
    measures["proofs"] = proofs
    (tmp_path / "cpu.json").write_text(EARLIER)
    assert command.cpu(conduct_cpu.PARTS, tmp_path, minutes=1) == 0
    assert json.loads((tmp_path / "cpu.json").read_text())["proofs"] == [PROOF]
    assert not list(tmp_path.glob("*unfinished*"))
    said = capsys.readouterr().out
    assert "met      slowest proof of the adversarial set" in said
    assert "empty    start-up" in said and "empty    decoding, 100 MB and more: share of the copy" in said
    assert "| strides 8 |" in (tmp_path / "cpu.md").read_text()


def test_stopping_keeps_what_was_measured_and_what_was_there(measures, tmp_path, capsys):
    measures["proofs"] = stopped
    (tmp_path / "cpu.json").write_text(EARLIER)
    assert command.cpu(conduct_cpu.PARTS, tmp_path, minutes=1) == 130
    assert (tmp_path / "cpu.json").read_text() == EARLIER
    assert json.loads((tmp_path / "cpu.unfinished.json").read_text())["proofs"] == [PROOF]
    assert "cpu.unfinished.json" in capsys.readouterr().err


def test_a_part_that_fails_leaves_the_others(measures, tmp_path):
    measures["lowering"], measures["proofs"] = failing, proofs
    assert command.cpu(conduct_cpu.PARTS, tmp_path, minutes=1) == 1
    saved = json.loads((tmp_path / "cpu.json").read_text())
    assert saved["proofs"] == [PROOF, PROOF]
    assert saved["failures"] == [{"cell": "lowering", "note": "RuntimeError: no compiler"}]
    assert "* lowering: RuntimeError: no compiler" in (tmp_path / "cpu.md").read_text()


def test_a_disk_that_fills_up_loses_nothing(measures, tmp_path, monkeypatch, capsys):
    save, calls = report.save, []

    def full(*given):
        calls.append(given)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return save(*given)

    measures["proofs"] = proofs
    monkeypatch.setattr(report, "save", full)
    assert command.cpu(conduct_cpu.PARTS, tmp_path, minutes=1) == 1
    said = capsys.readouterr()
    printed = next(line for line in said.out.splitlines() if line.startswith("{"))
    assert json.loads(printed)["proofs"] == [PROOF]
    assert "No space left" in said.err


def test_a_place_that_cannot_be_written_is_named_before_anything_is_measured(measures, tmp_path):
    measures["startup"] = stopped  # would end otherwise
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"results cannot be written to .*--results takes another folder"):
        command.cpu(conduct_cpu.PARTS, tmp_path / "file" / "results", minutes=1)


def test_a_wrong_word_is_answered_with_the_right_ones():
    done = benchmarks("cpu", "--only", "atention")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "'atention'" in done.stderr and all(part in done.stderr for part in conduct_cpu.PARTS)


def test_past_the_deadline_cells_stay_empty_and_say_so(tmp_path):
    rows = [row for _, row in conduct_cpu.measure(("attention",), time.perf_counter() - 1)]
    assert rows and all("time was over" in row["note"] and row["cell"] for row in rows)


def test_imports_are_profiled(monkeypatch):
    monkeypatch.setattr(startup, "COMMANDS", {"--help": ["--help"], "verify": ["verify", "rows", "demo"]})
    found = {row["what"]: row for row in startup.imports()}
    assert "torch_ms" not in found["--help"] and "numpy_ms" not in found["--help"]
    assert found["verify"]["numpy_ms"] > 0  # the profile does see packages
    assert 0 < found["--help"]["all_ms"] < found["verify"]["all_ms"]


def test_the_gallery_keeps_its_promises():
    rows = list(gallery())
    assert len({row["what"] for row in rows}) > 10 and all(row["holds"] for row in rows)


def test_every_part_of_the_suite_has_a_section():
    shown = {part.split(":")[0] for part in PAGES["cpu"]}
    assert set(conduct_cpu.PARTS) <= shown and set(ABOUT) <= set(PAGES["cpu"])
    assert set(conduct_cpu.PARTS) == set(conduct_cpu.MEASURES)
