"""The stubs of NVIDIA's runtime and driver refuse what these do; without that, a rehearsal on them says nothing. Where
torch was built for CUDA: `pip install torch` from PyPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.benchmarks.stub import build

NEEDS = torch.version.cuda is None or not shutil.which("gcc") or sys.platform != "linux"
pytestmark = pytest.mark.skipif(NEEDS, reason="needs a torch that was built for CUDA, and gcc")
SCRIPT = """\
import torch, triton, triton.language as tl

@triton.jit
def copy(x, y, n, ROWS: tl.constexpr):
    place = tl.arange(0, ROWS)
    tl.store(y + place, tl.load(x + place, mask=place < n), mask=place < n)

class Kept:  # an address whose memory is gone
    def __init__(self, x):
        self.dtype, self.address = x.dtype, x.data_ptr()
    def data_ptr(self):
        return self.address

def refused(what, call):
    try:
        call()
    except (RuntimeError, ValueError) as error:
        print(what, "refused:", str(error).splitlines()[0])
    else:
        print(what, "taken")

def captured(call):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    graph.replay()

def on_another_stream():
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        copy[(1,)](x, y, 8, ROWS=64)

x, y = torch.tensor([1.0, 2.0, 3.0] * 20, device="cuda"), torch.empty(60, device="cuda")
assert x.cpu().tolist() == [1.0, 2.0, 3.0] * 20 and x.is_cuda
copy[(1,)](x, y, 8, ROWS=64)
gone = Kept(torch.empty(1 << 24, device="cuda"))
torch.cuda.empty_cache()
refused("a launch", lambda: copy[(1,)](x, y, 8, ROWS=64))
refused("freed memory", lambda: copy[(1,)](gone, y, 8, ROWS=64))
refused("a grid of no programs", lambda: copy[(1, 1 << 16)](x, y, 8, ROWS=64))
graph, z = torch.cuda.CUDAGraph(), torch.empty(1 << 24, device="cuda")
with torch.cuda.graph(graph):
    copy[(1,)](z, y, 8, ROWS=64)
refused("a replay", graph.replay)
del z
torch.cuda.empty_cache()
refused("a replay of freed memory", graph.replay)
refused("a graph", lambda: captured(lambda: copy[(1,)](x, y, 8, ROWS=64)))
refused("an item in a graph", lambda: captured(lambda: x[0].item()))
refused("waiting in a graph", lambda: captured(torch.cuda.synchronize))
refused("a copy from the host in a graph", lambda: captured(lambda: torch.tensor([1.0], device="cuda")))
refused("another stream beside a graph", lambda: captured(on_another_stream))
"""


def test_what_the_device_would_refuse_is_refused(tmp_path: Path) -> None:
    cuda = build.driver(tmp_path)
    libraries = " ".join(map(str, (*build.runtime(tmp_path, cuda), cuda)))
    (tmp_path / "script.py").write_text(SCRIPT)
    complaints = tmp_path / "complaints"
    paths = {"LD_LIBRARY_PATH": str(tmp_path), "TRITON_LIBCUDA_PATH": str(tmp_path), "LD_PRELOAD": libraries}
    environment = os.environ | paths | {"STUB_COMPLAINTS": str(complaints), "TRITON_CACHE_DIR": str(tmp_path / "made")}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = {what: why for what, _, why in (line.partition(" refused: ") for line in done.stdout.splitlines())}
    assert {what for what, why in said.items() if not why} == {
        "a launch taken", "a graph taken", "a replay taken", "another stream beside a graph taken",
    }  # fmt: skip
    assert "cannot be accessed" in said["freed memory"]
    told = complaints.read_text()
    for line in (
        "asked of", "cudaStreamSynchronize on a stream that is captured", "cudaDeviceSynchronize while a stream",
        "copy goes into no graph, while another stream is captured", "is freed, in a graph that is replayed",
        "a grid of 1, 65536, 1",
    ):  # fmt: skip
        assert line in told, told
