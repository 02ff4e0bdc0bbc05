"""All that is asked of a borrowed GPU, in a folder that was prepared: python -m tests.gpu.lease OUT --call 1

    call 1    right        the tests of the GPU, on all cores
              decided      the cells of the benchmarks that open constants wait for, and the ceilings
    call 2    measured     the cells that the goals are about, the peers, and one file of all that was written
              profiled     counters of the kernels that miss their goals, where ncu is
              sanitized    a few of the tests under compute-sanitizer, as long as there is time

Two calls of five and six and a half minutes: beside them a machine starts twice in the fifteen. What each step prints
stands in OUT while it goes on; one that takes longer than it may is ended, with what it has written so far. A line for
each at the end says how it ended, and the exit code is the greatest of all. OUT has eight files at most.
--seconds is another limit for all steps together, --only one step; --toy tries them without a GPU.
"""

from __future__ import annotations

import argparse
import lzma
import os
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.gpu import carried

FOLDER = Path(__file__).parents[2]  # what `prepare` wrote
CACHES = "compiled"  # in it: what is compiled there, and what was before
LATE = 124  # exit code of a step that was ended, as of `timeout`
CALLS = {1: 300.0, 2: 390.0}  # seconds of each
ENDS_S = 10.0  # that a step with a budget of its own has beyond it, and that one has which is asked to end
LEAST_S = 20.0  # less is of no use to any step


@dataclass(frozen=True)
class Step:
    """What Python is to run, with its limit in seconds where `{}` stands; `usual` and `most` seconds."""

    call: int
    command: tuple[str, ...]
    toy: tuple[str, ...]
    usual: float
    most: float


TESTS = ("-m", "interpret or not gpu", "-k", "parts_without or (masks and gpu_tokens)")
SUITE = ("benchmarks", "gpu", ".", "--seconds", "{}")


def steps(out: Path) -> dict[str, Step]:
    """All steps, in order. The first one took 89 s on an H100 with 16 cores, of 76 tests; the others' usual seconds are
    their budgets."""
    caches = "--caches", str(FOLDER / CACHES)
    whole = ("--results", str(out), "--archive", str(out / "results.tar.gz"), *caches)
    return {
        "right": Step(
            1, ("tests.gpu.together", "--seconds", "{}"), ("-n", "2", "--patience", "300", "--", *TESTS), 110, 150
        ),
        "decided": Step(1, (*SUITE, "--deciding", "--results", str(out / "decided"), *caches), ("--toy",), 180, 290),
        "measured": Step(2, (*SUITE, "--goals", *whole), ("--toy",), 270, 330),
        "profiled": Step(
            2,
            ("benchmarks", "profile", str(out), "--seconds", "{}", *caches),
            ("--toy",),
            45,
            60,
        ),
        "sanitized": Step(2, ("tests.gpu.sanitized", "--seconds", "{}"), (), 60, 200),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.lease")
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder for what the steps print and measure")
    parser.add_argument("--call", type=int, choices=tuple(CALLS), action="append", help="its steps; both without it")
    parser.add_argument("--only", action="append", choices=tuple(steps(Path())), help="this step; may be repeated")
    parser.add_argument("--seconds", type=float, help="of all steps together (default 300 and 390, for both calls 690)")
    parser.add_argument("--toy", action="store_true", help="small, and in Triton's interpreter")
    options = parser.parse_args()
    calls = options.call or tuple(CALLS)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    chosen = {
        name: step for name, step in steps(out).items()
        if (name in options.only if options.only else step.call in calls)
    }  # fmt: skip
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    peers = (str(FOLDER / "peers"), os.environ.get("PYTHONPATH", ""))  # those that were put there, and can be imported
    environment["PYTHONPATH"] = os.pathsep.join(part for part in peers if part)
    environment["TRITON_CACHE_DIR"] = str(compiled())
    if options.toy:
        environment["TRITON_INTERPRET"] = "1"
    seconds = options.seconds or sum(CALLS[call] for call in {step.call for step in chosen.values()})
    if options.toy and not options.seconds:
        seconds *= 10
    return run(chosen, out, seconds, environment, toy=options.toy)


def compiled() -> Path:
    """Triton's cache for all steps, with the kernels that were carried along, if any were."""
    cache, file = FOLDER / CACHES / "TRITON_CACHE_DIR", FOLDER / carried.FILE
    if file.is_file() and not cache.is_dir():
        try:
            print(f"{carried.unpack(file, cache)} kernels were compiled before")
        except (OSError, ValueError, KeyError, EOFError, tarfile.TarError, lzma.LZMAError) as error:
            print(f"what was compiled before is not as it was written, so all is compiled here: {error}")
    return cache


def run(chosen: dict[str, Step], out: Path, seconds: float, environment: dict[str, str], *, toy: bool) -> int:
    """The steps one after the other; the greatest of their exit codes."""
    until = time.monotonic() + seconds
    for name, step in chosen.items():
        print(f"{name}: about {step.usual:.0f} s")
    print(f"together about {sum(step.usual for step in chosen.values()):.0f} s, {seconds:.0f} s at most", flush=True)
    ended: dict[str, tuple[int, float]] = {}
    waiting = list(chosen)
    for name, step in chosen.items():
        waiting.remove(name)
        left = until - time.monotonic()
        limit = allowed(step, left, [chosen[later] for later in waiting], toy=toy)
        if limit < LEAST_S:
            print(f"{name}: not begun, {max(left, 0):.0f} s are left", flush=True)
            ended[name] = LATE, 0.0
            continue
        print(f"\n{name}: {limit:.0f} s at most; {left:.0f} s are left", flush=True)
        command = [part.format(f"{limit - ENDS_S:.0f}") for part in (*step.command, *(step.toy if toy else ()))]
        begin = time.monotonic()
        code = finished([sys.executable, "-m", *command], out / f"{name}.txt", limit, environment)
        ended[name] = code, time.monotonic() - begin
        print(tail(out / f"{name}.txt"), flush=True)
    print()
    for name, (code, took) in ended.items():
        late = ", for its time was over" * (code == LATE)
        print(f"{name}: exit code {code}{late}, {took:.0f} s, {out / f'{name}.txt'}")
    return max((code for code, _ in ended.values()), default=0)


def allowed(step: Step, left: float, later: list[Step], *, toy: bool = False) -> float:
    """Seconds that a step may take: as many as leave to later ones what they usually take, but its own usual ones if
    there are as many, and never more than its most.

    >>> first, second = (Step(1, (), (), usual, most) for usual, most in ((100, 150), (180, 290)))
    >>> [allowed(first, left, [second]) for left in (400, 300, 200, 60)]
    [150, 120, 100, 60]
    """
    most = 10 * step.most if toy else step.most
    return min(most, left, max(step.usual, left - sum(each.usual for each in later)))


def finished(command: list[str], file: Path, seconds: float, environment: dict[str, str]) -> int:
    """The exit code of the command, which prints to the file. After so many seconds it is asked to end, and then made
    to, with all processes that it has started."""
    with file.open("w") as said:
        process = subprocess.Popen(
            command, cwd=FOLDER, env=environment, stdout=said, stderr=subprocess.STDOUT, preexec_fn=_heeds
        )
    try:
        code = process.wait(seconds)
        return code if code >= 0 else 128 - code
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDS_S)
        return LATE
    finally:
        if process.poll() is None:
            for pid in (*descendants(process.pid), process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def _heeds() -> None:
    """The new process ends when it is asked to, though this one, in the background of a shell, may ignore that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def descendants(pid: int) -> list[int]:
    """The processes that it has started, and those that these have: sessions of their own are no way out."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = entry.read_text().rsplit(")", 1)[1].split()
            parents.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found[1:]


def tail(file: Path, lines: int = 60) -> str:
    """What is to be seen of a step at once."""
    return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])


if __name__ == "__main__":
    sys.exit(main())
