"""The gpu suite at toy size, in the interpreter: alone, killed, out of time, crashing; wrong kernels get no time."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import __main__ as main
from benchmarks import targets
from benchmarks.gpu import conduct
from benchmarks.gpu.cells import PARTS, cells
from tests.benchmarks.conftest import ROOT, benchmarks

# Everything of ours, and everything that patterncc needs beside torch and triton.
ABSENT = ("patterncc", "codegen_templates", "pydantic", "typer", "yaml", "rich", "matplotlib", "pytest")

# DKernel's interface over dense attention: what it is given, and what is asked of it.
DKERNEL = """
import os
import time
import torch

class SparseAttention(torch.nn.Module):
    def __init__(self, block_size, sparse_pattern, *, causal=True, seq_dim=None):
        super().__init__()
        assert seq_dim == 2 and causal and sparse_pattern.dtype == torch.uint8
        if os.environ.get("DKERNEL") == "crashes":
            os.abort()
        if os.environ.get("DKERNEL") == "hangs":
            time.sleep(600)
        pattern = sparse_pattern.repeat_interleave(block_size, 1).repeat_interleave(block_size, 2).bool()
        if os.environ.get("DKERNEL") == "wrong":
            pattern[:, -1, 0] ^= True
        self.register_buffer("mask", pattern.tril())

    def forward(self, q, k, v, sm_scale=None):
        assert q.shape == k.shape == v.shape
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, scale=sm_scale)
"""


@pytest.fixture
def peers_folder(tmp_path: Path) -> Path:
    """For PYTHONPATH: something that looks like DKernel."""
    folder = tmp_path / "peers"
    folder.mkdir()
    (folder / "dkernel.py").write_text(DKERNEL)
    return folder


def measured(results: Path) -> dict[str, Any]:
    return json.loads((results / "gpu.json").read_text())


@pytest.mark.interpret
def test_it_needs_torch_and_triton_only(prepared: Path, peers_folder: Path, tmp_path: Path) -> None:
    """From the prepared folder, in processes that can import nothing else; each cell has a figure or a reason."""
    (peers_folder / "sitecustomize.py").write_text(f"import sys\nfor name in {ABSENT}:\n    sys.modules[name] = None\n")
    path = str(peers_folder)
    control = benchmarks("prepare", str(tmp_path), "--toy", cwd=prepared, PYTHONPATH=path)
    assert "ModuleNotFoundError: import of patterncc halted" in control.stderr
    parts = ("ceilings", "attention", "families", "variants", "serving", "peers")
    chosen = [argument for part in parts for argument in ("--only", part)]
    places = "--results", str(tmp_path), "--archive", str(tmp_path / "there" / "all.tar.gz")
    done = benchmarks("gpu", ".", "--toy", *chosen, *places, cwd=prepared, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    document = measured(tmp_path)
    for part in parts:
        assert [cell.name for cell in cells(part, toy=True)] == list(dict.fromkeys(r["cell"] for r in document[part]))
    figures = [row for part in parts for row in document[part] if "note" not in row]
    assert {row.get("direction") for row in document["attention"]} == {"forward", "backward"}
    assert {row["what"] for row in document["serving"]} == {"decode", "launches", "sharing", "varlen", "paged"}
    assert {(row["peer"], row["direction"]) for row in document["peers"] if "note" not in row} == {
        ("dkernel", "forward"),
        ("dkernel", "backward"),
        ("flex", "forward"),
    }
    assert all(0 <= row["error"] < 2e-6 for row in figures if "error" in row)
    assert all(row["met"] is None for row in document["targets"])  # toy times are compared with nothing
    page = (tmp_path / "gpu.md").read_text()
    assert "toy run" in page and "FlexAttention does not support backward on CPU" in page
    assert "FlashAttention-4 cannot be imported" in page and "flash-sparse-attn cannot be imported" in page
    with tarfile.open(tmp_path / "there" / "all.tar.gz") as archive:
        assert {"gpu.json", "gpu.md"} <= set(archive.getnames()) <= {"gpu.json", "gpu.md", "gpu.png"}
        assert archive.extractfile("gpu.md").read().decode() == page  # type: ignore[union-attr]


@pytest.mark.interpret
@pytest.mark.slow
def test_first_calls_come_from_processes_of_their_own(prepared: Path, tmp_path: Path) -> None:
    """Binaries that are there and not taken are no first call with binaries: the row says so."""
    folder = shutil.copytree(prepared, tmp_path / "there")
    shipped = shutil.copytree(folder / "packages" / "bench_toy", folder / "shipped" / "bench_toy")
    manifest = json.loads((shipped / "manifest.json").read_text())
    manifest["options"]["binaries"] = {"triton": "0.0", "arches": ["sm_90"]}
    (shipped / "manifest.json").write_text(json.dumps(manifest))
    chosen = ("--only", "first_call", "--only", "compiling")
    done = benchmarks("gpu", str(folder), "--toy", *chosen, "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    ours = [row for row in measured(tmp_path)["compiling"] if "peer" not in row]
    assert ours and all(row["seconds"] > 0 for row in ours)
    rows = measured(tmp_path)["first_call"]
    assert [row["caches"] for row in rows if row["what"] == "nothing shipped"] == ["empty", "of an earlier process"]
    assert all(row["decode_s"] > 0 for row in rows if row["what"] == "nothing shipped")
    [shipped_row] = [row for row in rows if row["what"] == "shipped binaries"]
    assert "built for triton 0.0" in shipped_row["compiled_after_all"]
    assert "compiled_after_all" not in rows[1]


def test_a_kill_loses_nothing_that_was_measured(prepared: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "gpu", str(prepared), "--toy", "--results", str(tmp_path)]
    command += ["--only", "ceilings", "--only", "attention"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "gpu.json").exists() or len(measured(tmp_path)["ceilings"]) < 2:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert [row["cell"] for row in measured(tmp_path)["ceilings"]][:2] == ["copy", "matrix product"]
    assert "MiB" not in benchmarks("report", "--results", str(tmp_path)).stderr
    assert "copy" in (tmp_path / "gpu.md").read_text()


def test_what_does_not_fit_the_time_is_empty_and_named(prepared: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    places = "--results", str(tmp_path), "--archive", str(tmp_path / "all.tar.gz")
    done = benchmarks("gpu", str(prepared), "--toy", "--minutes", "0.08", *places)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begin < 0.08 * 60 + 30  # of which some is Python's own start
    document = measured(tmp_path)
    for part in PARTS:
        assert {row["cell"] for row in document[part]} == {cell.name for cell in cells(part, toy=True)}
    assert all("not measured" in row["note"] for row in document["peers"])
    with tarfile.open(tmp_path / "all.tar.gz") as archive:
        assert json.load(archive.extractfile("gpu.json")) == document  # type: ignore[arg-type]


@pytest.mark.interpret
def test_a_crash_costs_one_cell(prepared: Path, peers_folder: Path, tmp_path: Path) -> None:
    arguments = ["gpu", str(prepared), "--toy", "--only", "peers", "--results", str(tmp_path)]
    done = benchmarks(*arguments, PYTHONPATH=str(peers_folder), DKERNEL="crashes")
    assert done.returncode == 0, done.stderr
    dkernel, *flex = measured(tmp_path)["peers"]
    assert dkernel["note"] == f"the process ended with {-signal.SIGABRT} while it was measured"
    assert flex[0]["over_peer"] > 0


@pytest.mark.interpret
@pytest.mark.slow
def test_a_hang_costs_one_cell(prepared: Path, peers_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no more time than that cell may take; the next one is measured."""
    monkeypatch.setenv("PYTHONPATH", str(peers_folder))
    monkeypatch.setenv("DKERNEL", "hangs")
    monkeypatch.setattr(conduct, "PATIENCE_S", 40.0)
    rows = [row for part, row in conduct.run(prepared, toy=True, seconds=300, only=("peers",)) if part == "peers"]
    assert rows[0]["note"] == f"the process ended with {-signal.SIGKILL} while it was measured"
    assert rows[1]["cell"].startswith("flex") and rows[1]["over_peer"] > 0


def test_parts_are_measured_one_by_one(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `--only` leaves out stays as it was, on the same GPU; another GPU's figures go."""
    monkeypatch.setattr(conduct, "missing", lambda: None)

    def measure(gpu: str, part: str, **row: Any) -> dict[str, Any]:
        events = [
            ("machine", {"accelerator": gpu, "torch": "t", "triton": "t"}),
            (part, {"cell": "x", "case": "grouped", **row}),
        ]
        monkeypatch.setattr(conduct, "run", lambda *_, **__: iter(events))
        assert main.gpu(prepared, tmp_path, toy=False, minutes=1, only=(part,)) == 0
        return measured(tmp_path)

    copied = {"what": "copy", "tb_per_s": 4.0}
    decoded = {"what": "decode", "requests": 1, "tokens": 64, "tb_per_s": 3.0}
    assert "serving" not in measure("one", "ceilings", **copied)
    found = measure("one", "serving", **decoded)
    assert found["ceilings"][0].items() >= copied.items() and found["serving"][0]["share_of_copy"] == 0.75
    assert measure("one", "serving", **{**decoded, "tb_per_s": 1.0})["serving"][0]["share_of_copy"] == 0.25
    assert "ceilings" not in measure("another", "serving", **decoded)


def test_stopped_before_its_end_it_meets_nothing(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was measured stays, without a traceback; a goal that it misses is missed."""
    monkeypatch.setattr(conduct, "missing", lambda: None)
    long = next(cell for cell in cells("attention") if cell.given["tokens"] == 1 << 17)
    ceiling = {"what": "dense", "head_dim": 128, "direction": "forward", "tflops": 500.0}

    def run(*_: Any, **__: Any) -> Any:
        yield "machine", {"accelerator": "one", "torch": "t", "triton": "t"}
        yield "ceilings", {"cell": "dense, head dim 128, cudnn", **ceiling}
        yield "attention", {"cell": long.name, **long.given, "direction": "forward", "head_dim": 128, "tflops": 490.0,
                            "density": 0.02, "over_flash": 20.0}  # fmt: skip
        raise KeyboardInterrupt

    monkeypatch.setattr(conduct, "run", run)
    assert main.gpu(prepared, tmp_path, toy=False, minutes=1, only=()) == 130
    share, *rest = measured(tmp_path)["targets"]
    [flash] = [row for row in rest if row["target"] == targets.FAR]
    assert (share["value"], share["met"], share["cells"][0]) == (0.98, None, 1) and share["cells"][1] > 10
    assert (flash["value"], flash["met"]) == (20.0, False)
    assert "stopped" in capsys.readouterr().err and "of 1 of" in (tmp_path / "gpu.md").read_text()


@pytest.mark.interpret
def test_a_wrong_peer_is_not_timed(prepared: Path, peers_folder: Path, tmp_path: Path) -> None:
    """And the suite ends with 1."""
    arguments = ["gpu", str(prepared), "--toy", "--only", "peers", "--results", str(tmp_path)]
    done = benchmarks(*arguments, PYTHONPATH=str(peers_folder), DKERNEL="wrong")
    assert done.returncode == 1 and "WRONG  dkernel: toy" in done.stdout
    [dkernel] = [row for row in measured(tmp_path)["peers"] if row["peer"] == "dkernel"]
    assert "the peer's result" in dkernel["note"] and "ms" not in dkernel


def test_a_prepared_folder_reports_alone(prepared: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(prepared, tmp_path / "there")
    done = benchmarks("report", cwd=folder)
    assert done.returncode == 0 and "gpu: nothing was measured" in done.stdout
    (folder / "benchmarks" / "results").mkdir()
    document = {"machine": {"processor": "p", "cores": 1, "torch": "t", "triton": "t"}, "targets": []}
    (folder / "benchmarks" / "results" / "gpu.json").write_text(json.dumps(document))
    assert benchmarks("report", cwd=folder).returncode == 0
    assert "Measured on p" in (folder / "benchmarks" / "results" / "gpu.md").read_text()


def test_without_packages_it_says_what_to_do(tmp_path: Path) -> None:
    done = benchmarks("gpu", str(tmp_path), "--toy")
    assert done.returncode == 1 and "python -m benchmarks prepare" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(prepared: Path) -> None:
    pytest.importorskip("triton")
    done = benchmarks("gpu", str(prepared))
    assert done.returncode == 1 and done.stderr.startswith("no GPU: ") and "--toy" in done.stderr
