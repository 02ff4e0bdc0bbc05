"""All that is asked of a borrowed GPU, in a folder that was prepared: python -m tests.gpu.lease OUT [--only STEP]

    right        the tests of the GPU, on all cores: 100 s
    sanitized    some of them under compute-sanitizer: a minute a tool
    fast         the most telling cells of the benchmarks: 90 s
    measured     the benchmarks, and one file of all that they wrote: 7.5 minutes

`right`, `sanitized` and `fast` are one call of ten minutes, `measured` is another: without --only all but `fast` are
done. Each step's output stands in OUT, and a line for each at the end says how it ended. The exit code is the
greatest of all. --toy tries the steps without a GPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parents[2]  # what `prepare` wrote
TOY = {
    "right": ("-n", "2", "--", "-m", "interpret or not gpu", "-k", "parts_without or (masks and gpu_tokens)"),
    "sanitized": (),
    "fast": ("--toy",),
    "measured": ("--toy",),
}


def steps(out: Path) -> dict[str, list[str]]:
    """The command of each step, for Python."""
    return {
        "right": ["tests.gpu.together"],
        "sanitized": ["tests.gpu.sanitized"],
        "fast": ["benchmarks", "gpu", ".", "--fast", "--results", str(out / "fast")],
        "measured": ["benchmarks", "gpu", ".", "--results", str(out), "--archive", str(out / "results.tar.gz")],
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.lease")
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder for what the steps print and measure")
    parser.add_argument("--only", action="append", choices=tuple(TOY), help="this step alone; may be repeated")
    parser.add_argument("--toy", action="store_true", help="small, and in Triton's interpreter")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"TRITON_CACHE_DIR": os.environ.get("TRITON_CACHE_DIR") or str(FOLDER / "compiled")}
    if options.toy:
        environment["TRITON_INTERPRET"] = "1"
    ended: dict[str, tuple[int, float]] = {}
    for step, command in steps(out).items():
        if step in (options.only or ("right", "sanitized", "measured")):
            begin = time.perf_counter()
            more = TOY[step] if options.toy else ()
            with (out / f"{step}.txt").open("w") as said:
                process = [sys.executable, "-m", *command, *more]
                code = subprocess.call(process, cwd=FOLDER, env=environment, stdout=said, stderr=subprocess.STDOUT)
            ended[step] = code, time.perf_counter() - begin
            print(tail(out / f"{step}.txt"), flush=True)
    for step, (code, took) in ended.items():
        print(f"{step}: exit code {code}, {took:.0f} s, {out / f'{step}.txt'}")
    return max(code for code, _ in ended.values())


def tail(file: Path, lines: int = 40) -> str:
    """What is to be seen of a step at once."""
    return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])


if __name__ == "__main__":
    sys.exit(main())
