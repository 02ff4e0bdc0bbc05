"""The GPU's tests in several processes, so that compiling takes all cores: python -m tests.gpu.together [-n PROCESSES]

Each process takes a share of the tests, which takes about as long as the others'; what one has compiled, the others
find in a cache that all have. What follows `--` goes to pytest. The exit code is the greatest of all.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parents[2]  # of the project, or what `prepare` wrote
SHARE = "PATTERNCC_GPU_TESTS"  # "3 of 16", read by conftest.py

# Kernels that a test compiles and no other has compiled before; they take nearly all of the time. Others: two.
KERNELS = {"test_the_program": 30, "test_each_direction": 12, "test_backward": 10, "test_training": 6}
KERNELS |= {"test_first_calls_compile_nothing": 20, "test_forward": 3}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.together")
    parser.add_argument("-n", type=int, default=min(os.cpu_count() or 1, 16), metavar="PROCESSES")
    parser.add_argument("rest", nargs="*", help="for pytest")
    options = parser.parse_args()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as caches:
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/gpu"]
        processes: list[tuple[subprocess.Popen[bytes], Path]] = []
        for number in range(options.n):
            path = Path(caches) / f"{number}.txt"
            environment = os.environ | {SHARE: f"{number} of {options.n}", "OMP_NUM_THREADS": "1"}
            environment.setdefault("TRITON_CACHE_DIR", str(Path(caches) / "triton"))
            with path.open("wb") as said:
                started = subprocess.Popen(
                    [*command, *options.rest], cwd=FOLDER, env=environment, stdout=said, stderr=subprocess.STDOUT
                )
            processes.append((started, path))
        codes = [process.wait() for process, _ in processes]
        texts = [path.read_text() for _, path in processes]
    for code, text in zip(codes, texts, strict=True):
        if code not in (0, 5):  # 5: nothing fell to it
            print(text)
    print(f"{summary(texts)} in {time.perf_counter() - begin:.1f} s, {options.n} processes")
    return max((code for code in codes if code != 5), default=5)


def share(names: Sequence[str], number: int, processes: int) -> list[int]:
    """The places of the tests of one process, in order: of all tests those with the most kernels first, each to the
    process that has the fewest.

    >>> names = ["test_a", "test_forward[x]", "test_backward[x]", "test_a", "test_b[y]", "test_b[z]"]
    >>> [share(names, number, 2) for number in range(2)]
    [[2], [0, 1, 3, 4, 5]]
    """
    weights = [KERNELS.get(name.split("[")[0], 2) for name in names]
    loads, found = [0] * processes, list[int]()
    for place in sorted(range(len(names)), key=lambda place: -weights[place]):
        least = loads.index(min(loads))
        loads[least] += weights[place]
        if least == number:
            found.append(place)
    return sorted(found)


def summary(texts: list[str]) -> str:
    """What all of them counted together.

    >>> summary(["2 passed, 1 skipped in 3.1s", "1 failed, 3 passed, 2 deselected in 2s", "no tests ran in 0.1s"])
    '1 failed, 5 passed, 1 skipped'
    """
    counts: dict[str, int] = {}
    for text in texts:
        last = next((line for line in reversed(text.splitlines()) if re.search(r" in [\d.]+s", line)), "")
        for number, kind in re.findall(r"(\d+) (failed|passed|skipped|errors?)", last):
            counts[kind.removesuffix("s")] = counts.get(kind.removesuffix("s"), 0) + int(number)
    order = ("failed", "error", "passed", "skipped")
    return ", ".join(f"{counts[kind]} {kind}" for kind in order if kind in counts) or "no tests ran"


if __name__ == "__main__":
    sys.exit(main())
