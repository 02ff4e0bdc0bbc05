"""Some tests of the GPU under NVIDIA's compute-sanitizer: python -m tests.gpu.sanitized [--tool TOOL] [--seconds N]

Every kernel of a whole forward and backward, and of a packed one, by both families. Tools look at our kernels alone. A
tool that takes longer than its seconds is ended and has no verdict. What lies compiled in $TRITON_CACHE_DIR is not
compiled again: `python -m tests.gpu.together` leaves it there. The exit code is the greatest of all.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

FOLDER = Path(__file__).parents[2]  # of the project, or what `prepare` wrote
TOOLS = ("memcheck", "racecheck", "synccheck")
SELECTED = "gpu_wide-whole or gpu_fine-packed or (test_training and bf16-gpu_tokens)"
PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")
LATE = 124  # exit code, as of `timeout`


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.sanitized")
    parser.add_argument("--tool", choices=TOOLS, action="append", help="this alone")
    parser.add_argument("--seconds", type=float, default=90, help="of each tool (default 90)")
    options = parser.parse_args()
    sanitizer = shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), *PLACES]))
    if sanitizer is None:
        sys.exit("no compute-sanitizer on PATH or in /usr/local/cuda: it comes with the CUDA toolkit")
    return max(check(sanitizer, tool, options.seconds) for tool in options.tool or TOOLS)


def check(sanitizer: str, tool: str, seconds: float) -> int:
    """The exit code of the tests under a tool; what they print is printed, and last a line that says how they ended."""
    tests = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/gpu", "-k", SELECTED]
    command = [sanitizer, "--tool", tool, "--kernel-name", "kns=attn_", "--error-exitcode", "1", *tests]
    environment = dict(os.environ)
    if tool == "memcheck":  # each tensor is an allocation of its own, whose bounds the tool knows
        environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
    begin = time.perf_counter()
    process = subprocess.Popen(command, cwd=FOLDER, env=environment, start_new_session=True)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        code = LATE
    ended = "no verdict, it was ended" if code == LATE else "clean" if code == 0 else f"NOT CLEAN, exit code {code}"
    print(f"{tool}: {ended} after {time.perf_counter() - begin:.0f} s", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
