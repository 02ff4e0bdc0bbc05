"""The gpu suite as on a GPU, on one that is not there: kernels are compiled for it, and launched by Triton's own
launcher on a stub of its driver. Nothing is computed; names, arguments, graphs and limits of the device are tried."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.cells import cells
from tests.benchmarks.conftest import ROOT, benchmarks
from tests.benchmarks.stub.build import driver

pytest.importorskip("triton")

STUB = Path(__file__).parent / "stub"
PARTS = ("compiling", "attention", "families", "variants", "serving", "host")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcc") or sys.platform != "linux", reason="Triton's launcher needs gcc")
def test_everything_around_the_kernels(prepared: Path, tmp_path: Path) -> None:
    place = str(driver(tmp_path).parent)
    paths = {"TRITON_LIBCUDA_PATH": place, "LD_LIBRARY_PATH": place, "PYTHONPATH": f"{STUB}:{ROOT}"}
    launches = tmp_path / "launches"
    chosen = [argument for part in PARTS for argument in ("--only", part)]
    done = benchmarks("gpu", str(prepared), *chosen, "--results", str(tmp_path), **paths, STUB_LAUNCHES=str(launches))
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "gpu.json").read_text())
    assert "a stub" in document["machine"]["accelerator"]
    for part in PARTS:
        rows = document[part]
        assert {row["cell"] for row in rows} == {cell.name for cell in cells(part, toy=True)}
        ours = [row for row in rows if "peer" not in row]  # no peer compiles here
        assert not [row for row in ours if "note" in row or "graph_note" in row or "flash_note" in row]
        assert all(row["ms"] > 0 and row["host_ms"] > 0 and row["sm_mhz"] == 1980 for row in rows if "ms" in row)
    assert {row["direction"] for row in document["attention"]} == {"forward", "backward"}
    assert any("graph_ms" in row for row in document["serving"])
    assert all(row["host_us"] >= row["least_us"] > 0 for row in document["host"])
    launched = set(launches.read_text().split())
    kernels = ("fwd", "combine", "bwd_prepare", "bwd_dq", "bwd_dkdv", "bwd_sum", "bwd_round")
    assert launched == {f"attn_{name}_bench_toy" for name in kernels}
