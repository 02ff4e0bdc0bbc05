"""What was prepared for a borrowed GPU, on a stub of one: python -m tests.gpu.rehearse FOLDER [MODULE ARGUMENTS …]

Runs `python -m MODULE ARGUMENTS` in the prepared folder, as there, on stubs of NVIDIA's driver and runtime that refuse
what these refuse: torch's own allocator, streams and graphs, Triton's own launcher, and no kernel that computes. Needs
gcc and the torch and Triton that are there, torch as built for CUDA. Exits with the command's code, or with 1 where the
stub refused something, and says what.

Without a module: compiles all that both calls launch (twenty minutes on two cores, for the GPU's tests run too), and
packs it into FOLDER/compiled.tar.xz, which `tests.gpu.lease` unpacks.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks.stub import build
from tests.gpu import carried, lease

HERE = Path(__file__).parent
CORES = str(os.cpu_count() or 1)
COMPILES = ("benchmarks", "gpu", ".", "--only", "compiling", "--minutes", "60", "--caches", lease.CACHES)
FILLS = (
    ("tests.gpu.together", "-n", CORES, "--seconds", "3600", "--patience", "600"),
    (*COMPILES, "--deciding"),
    (*COMPILES, "--goals"),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.rehearse")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="what `gpu-packages` wrote")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="MODULE ARGUMENTS", help="run this there")
    options = parser.parse_args()
    folder = options.folder.resolve()
    with tempfile.TemporaryDirectory() as files:
        environment = on_stub(folder, Path(files))
        if options.command:
            return run(folder, options.command, environment, Path(files))
        cache = folder / lease.CACHES / "TRITON_CACHE_DIR"
        codes = [run(folder, each, environment | {"TRITON_CACHE_DIR": str(cache)}, Path(files)) for each in FILLS]
    file = folder / carried.FILE
    print(f"{carried.pack(cache, file)} kernels, {file.stat().st_size / 1e6:.1f} MB, are in {file}")
    return max(codes)


def on_stub(folder: Path, files: Path) -> dict[str, str]:
    """The environment of what is to run on the stub, which is made in `files`."""
    cuda = build.driver(files)
    runtime = build.runtime(files, cuda)
    if not runtime:
        sys.exit("torch was built for the CPU alone: `pip install torch` from PyPI has the one for CUDA")
    paths = str(HERE / "stub"), str(folder), os.environ.get("PYTHONPATH", "")
    return os.environ | {
        "LD_PRELOAD": " ".join(map(str, (*runtime, cuda))),
        "LD_LIBRARY_PATH": str(files),
        "TRITON_LIBCUDA_PATH": str(files),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "STUB_COMPLAINTS": str(files / "complaints"),
    }


def run(folder: Path, command: Sequence[str], environment: Mapping[str, str], files: Path) -> int:
    """The exit code of a command, at least 1 where the stub refused something."""
    complaints = files / "complaints"
    complaints.unlink(missing_ok=True)
    code = subprocess.call([sys.executable, "-m", *command], cwd=folder, env=environment)
    said = dict.fromkeys(complaints.read_text().splitlines()) if complaints.exists() else {}
    for line in said:
        print(line)
    return max(code, int(bool(said)))


if __name__ == "__main__":
    sys.exit(main())
