"""Where the time of a kernel goes: `python -m benchmarks profile` has NVIDIA's ncu read the counters of the cells that
miss their goals, or of one that is named.

What to look for, in ncu's words, and what it would say of the kernels for Hopper:

    SpeedOfLight             neither memory nor compute near 100 %: something is waited for, see WarpStateStats
    ComputeWorkloadAnalysis  the tensor pipe's share: what share_of_dense says, from inside
    WarpStateStats           long scoreboard: loads from global memory in a consumer; barrier or membar: mbarriers, so
                             the producer is late (its loads), or frees are; wait, math pipe throttle: products
    MemoryWorkloadAnalysis   L2's hit rate and bytes: whether a head's keys stay in L2 (the order of far slots)
    SchedulerStats           issued warps a cycle: instructions a slot, where the pipe is not full
    LaunchStats, Occupancy   registers, shared memory, waves
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import Any

from benchmarks import decide, targets
from benchmarks.gpu.cells import PARTS, Cell, cells, in_order
from benchmarks.gpu.conduct import CACHES
from benchmarks.gpu.shares import with_shares

SECTIONS = ("SpeedOfLight", "ComputeWorkloadAnalysis", "WarpStateStats", "MemoryWorkloadAnalysis", "SchedulerStats")
SECTIONS += ("LaunchStats", "Occupancy")
PLACES = ("/usr/local/cuda/bin", "/opt/nvidia/nsight-compute/*", "/usr/local/cuda/nsight-compute-*")
MOST = 4  # cells
LEAST_S = 15.0  # that one needs: a process, and its kernels found compiled
LATE = 124  # exit code, as of `timeout`
Wanted = tuple[str, str]  # a cell and a direction


def missing_their_goals(results: Mapping[str, Any]) -> list[Wanted]:
    """Of each goal that is missed by a kernel's time, the cell that misses it most; toy times miss none."""
    if "toy" in results:
        return []
    parts = {name: rows for name, rows in results.items() if isinstance(rows, list)}
    found: list[Wanted] = []
    for target in targets.of_gpu(with_shares(in_order(parts))):
        missed = [row for row in target.measured() if not target.holds(row[target.field])]
        if missed and decide.profiled(missed[0]):
            row = missed[0]
            found.append((str(row["cell"]), str(row.get("direction", "forward"))))
    return list(dict.fromkeys(found))[:MOST]


def profile(folder: Path, wanted: Sequence[Wanted], seconds: float, caches: Path | None, *, toy: bool) -> int:
    """The counters of each cell are printed; the greatest exit code. What does not fit the seconds is named."""
    begin, codes = time.perf_counter(), [0]
    tool = [] if toy else _profiler()
    for cell, direction in wanted:
        left = seconds - (time.perf_counter() - begin)
        print(f"\n{cell}, {direction}", flush=True)
        if left < LEAST_S:
            print(f"not profiled: {max(left, 0):.0f} s are left")
            codes.append(LATE)
            continue
        environment = os.environ | ({name: str(caches / name) for name in CACHES} if caches else {})
        given = json.dumps({"folder": str(folder), "cell": cell, "direction": direction, "toy": toy})
        command = [*tool, sys.executable, "-m", "benchmarks.gpu.counted", given]
        code, said = _ended(command, environment, left)
        print(said, flush=True)
        if code == LATE:
            print(f"it was ended after {left:.0f} s")
        codes.append(abs(code))
    if not wanted:
        print("nothing to profile: no goal is missed by a kernel's time")
    return max(codes)


def _ended(command: Sequence[str], environment: Mapping[str, str], seconds: float) -> tuple[int, str]:
    """The exit code of a command and what it printed, errors only where it failed; LATE where it was ended, with all
    that it started: a profiler is not what holds the GPU."""
    process = subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        said, errors = process.communicate(timeout=seconds)
        code = process.returncode
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        said, errors = process.communicate()
        code = LATE
    return code, said + errors if code else said


def known(name: str, *, toy: bool = False) -> Cell:
    """The cell of that name; exits where there is none, or where it is of no kernel of ours."""
    for part in PARTS[1:]:
        for cell in cells(part, toy=toy):
            if cell.name == name and ("tokens" in cell.given and part != "host"):
                return cell
    sys.exit(f"{name!r} is no cell of whole sequences or of decoding: `python -m benchmarks decide` names some")


def _profiler() -> list[str]:
    place = os.pathsep.join([os.environ.get("PATH", ""), *(found for each in PLACES for found in sorted(glob(each)))])
    found = shutil.which("ncu", path=place)
    if found is None:
        sys.exit("no ncu on PATH or in /usr/local/cuda: it comes with the CUDA toolkit")
    sections = [part for name in SECTIONS for part in ("--section", name)]
    # clocks stay as they are: they are the machine's, and what was timed ran with them
    how = ["--clock-control", "none", "--profile-from-start", "off", "--kernel-name", "regex:^attn_"]
    return [found, *how, "--launch-count", "6", "--print-details", "all", *sections]
