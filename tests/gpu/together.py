"""The GPU's tests in several processes, so that compiling takes all cores: python -m tests.gpu.together [-n PROCESSES]

Each process takes a share of the tests, which takes about as long as the others'; what one has compiled, the others
find in a cache that all have. A failure is printed when it comes. A test that hangs, that ends its process, or after
which the GPU's context is lost costs itself: another process goes on behind it. After --seconds all are ended, and what
has not run is named. What follows `--` goes to pytest. The exit code is 1 when a test failed, 124 when time ran out.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.gpu.watched import Ended, Watched

FOLDER = Path(__file__).parents[2]  # of the project, or what `prepare` wrote
SHARE = "PATTERNCC_GPU_TESTS"  # "3 of 16", read by conftest.py
LATE, NONE = 124, 5  # exit codes, as of `timeout` and of pytest
SAYS_S = 15.0  # between two lines on how far it is
WRONG = ("failed", "hung", "crashed")

# Kernels that a test compiles and no other has compiled before; they take nearly all of the time. Others: two.
KERNELS = {"test_the_program": 30, "test_each_direction": 12, "test_backward": 10, "test_training": 6}
KERNELS |= {"test_first_calls_compile_nothing": 20, "test_forward": 3}
KERNELS |= {"test_sinks_are_right_in_every_call": 6, "test_rows_of_no_sequence_are_nothing_in_every_call": 6}
# What no GPU has run so far, and what all else stands on, come first; the others come as they are collected.
TELLING = ("test_backward", "test_forward", "test_the_last_program", "test_parts_of_a_tile", "test_sinks", "test_rows")
TELLING += (
    "test_pages_are_read",
    "test_launches_side_by_side",
    "test_training",
    "test_chunked_prefill",
    "test_decoding",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.together")
    parser.add_argument("-n", type=int, default=min(os.cpu_count() or 1, 16), metavar="PROCESSES")
    parser.add_argument("--seconds", type=float, default=600, help="then all are ended (default 600)")
    parser.add_argument(
        "--patience", type=float, default=30, help="seconds in which a test does something (default 30)"
    )
    parser.add_argument("rest", nargs="*", help="for pytest")
    options = parser.parse_args()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as files:
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/gpu"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        environment.setdefault("TRITON_CACHE_DIR", os.path.join(files, "triton"))
        processes = [
            Watched(
                [*command, *options.rest], FOLDER, environment | {SHARE: f"{number} of {options.n}"},
                Path(files) / str(number), options.patience,
            )
            for number in range(options.n)
        ]  # fmt: skip
        ended = list[Ended]()
        try:
            for each in watch(processes, begin + options.seconds):
                ended.append(each)
        except KeyboardInterrupt:
            print("stopped")
        finally:
            for process in processes:
                process.end()
    left = [test for process in processes for test in process.left]
    for line in closing(ended, left):
        print(line)
    print(f"{summary(ended, len(left))} in {time.perf_counter() - begin:.1f} s, {options.n} processes", flush=True)
    if any(each.outcome in WRONG for each in ended):
        return 1
    return LATE if left else 0 if ended else NONE


def watch(processes: Sequence[Watched], until: float) -> Iterator[Ended]:
    """How each test ended, until all have or time is over; what went wrong is printed at once."""
    begin = said = time.perf_counter()
    count = 0
    while time.perf_counter() < until and not all(process.over for process in processes):
        for each in (each for process in processes for each in process.look()):
            count += 1
            yield each
            if each.outcome in WRONG:
                print(f"{each.outcome.upper()} {each.test} after {each.seconds:.0f} s\n{each.text}\n", flush=True)
        if time.perf_counter() - said > SAYS_S:
            said = time.perf_counter()
            left = sum(len(process.left) for process in processes)
            print(f"  {said - begin:.0f} s: {count} tests ended, {left} are left", flush=True)
        time.sleep(0.1)


def closing(ended: Sequence[Ended], left: Sequence[str]) -> Iterator[str]:
    """Lines for the end: what took longest, why tests were skipped, what has not run, and once more what is wrong."""
    for each in sorted(ended, key=lambda each: -each.seconds)[:5]:
        yield f"  {each.seconds:6.1f} s  {each.test}"
    for reason, count in Counter(each.text for each in ended if each.outcome == "skipped").most_common():
        yield f"skipped, {count}: {reason}"
    yield from (f"not run: {test}" for test in left)
    yield from (f"{each.outcome.upper()} {each.test}" for each in ended if each.outcome in WRONG)


def rank(name: str) -> int:
    """Where a test comes among those of its process.

    >>> sorted(["test_x", "test_training[a]", "test_backward[b]"], key=rank)
    ['test_backward[b]', 'test_training[a]', 'test_x']
    """
    return next((n for n, known in enumerate(TELLING) if name.startswith(known)), len(TELLING))


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


def summary(ended: Sequence[Ended], left: int = 0) -> str:
    """What all of them counted together.

    >>> outcomes = ("passed", "skipped", "failed", "passed", "hung")
    >>> summary([Ended("test_x", outcome, 1.0) for outcome in outcomes], 3)
    '1 failed, 1 hung, 2 passed, 1 skipped, 3 not run'
    """
    counts = Counter(each.outcome for each in ended) + Counter({"not run": left})
    order = (*WRONG, "passed", "skipped", "not run")
    return ", ".join(f"{counts[kind]} {kind}" for kind in order if counts[kind]) or "no tests ran"


if __name__ == "__main__":
    sys.exit(main())
