"""Some tests of the GPU under NVIDIA's compute-sanitizer: python -m tests.gpu.sanitized [--tool TOOL] [--seconds N]

Every kernel of a whole forward and backward, and of a packed one, by both families. Each tool has a process for each
test, all at once, since most of their time is compiling, which what lies in $TRITON_CACHE_DIR spares. Tools look at our
kernels alone. What has not ended after --seconds is ended and has no verdict. The exit code is the greatest of all.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

FOLDER = Path(__file__).parents[2]  # of the project, or what `prepare` wrote
TOOLS = ("memcheck", "racecheck", "synccheck")
SELECTED = ("test_backward[gpu_wide-whole]", "test_backward[gpu_fine-packed]")
SELECTED += ("test_forward[gpu_wide-whole]", "test_forward[gpu_fine-packed]")
TESTS = (*(f"test_families.py::{name}" for name in SELECTED), "test_kernels.py::test_training[bf16-gpu_tokens]")
PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")
LATE = 124  # exit code, as of `timeout`


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.sanitized")
    parser.add_argument("--tool", choices=TOOLS, action="append", help="this alone")
    parser.add_argument("--seconds", type=float, default=200, help="of all together (default 200)")
    options = parser.parse_args()
    sanitizer = shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), *PLACES]))
    if sanitizer is None:
        sys.exit("no compute-sanitizer on PATH or in /usr/local/cuda: it comes with the CUDA toolkit")
    return check(sanitizer, options.tool or TOOLS, options.seconds)


def check(sanitizer: str, tools: Sequence[str], seconds: float) -> int:
    """The greatest exit code of the tests under each tool: for each a line that says how they ended, and before it what
    those printed that were not clean."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as files:
        said = {(tool, test): Path(files) / f"{tool}{n}.txt" for tool in tools for n, test in enumerate(TESTS)}
        started = {key: _started(sanitizer, *key, file) for key, file in said.items()}
        codes = {key: _ended(process, begin + seconds) for key, process in started.items()}
        for key, code in codes.items():
            if code not in (0, LATE):
                print(f"{key[0]}, {key[1]}:\n{said[key].read_text(errors='replace')[:6000]}\n")
    for tool in tools:
        own = {test: code for (known, test), code in codes.items() if known == tool}
        wrong = [test for test, code in own.items() if code not in (0, LATE)]
        late = [test for test, code in own.items() if code == LATE]
        verdicts = [f"NOT CLEAN: {', '.join(wrong)}"] if wrong else ["clean"] if len(late) < len(own) else []
        verdicts += [f"no verdict for {len(late)} of {len(own)}: {', '.join(late)}"] if late else []
        print(f"{tool}: {'; '.join(verdicts)}; {time.perf_counter() - begin:.0f} s", flush=True)
    return max(codes.values())


def _started(sanitizer: str, tool: str, test: str, file: Path) -> subprocess.Popen[bytes]:
    tests = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"tests/gpu/{test}"]
    how = ["--tool", tool, "--kernel-name", "kns=attn_", "--error-exitcode", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    if tool == "memcheck":  # each tensor is an allocation of its own, whose bounds the tool knows
        environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
        how += ["--report-api-errors", "no"]  # torch asks the driver for what it may not have
    command = [sanitizer, *how, *tests]
    with file.open("wb") as said:
        return subprocess.Popen(
            command, cwd=FOLDER, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )


def _ended(process: subprocess.Popen[bytes], until: float) -> int:
    try:
        return abs(process.wait(max(until - time.perf_counter(), 0)))
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return LATE


if __name__ == "__main__":
    sys.exit(main())
