"""Reports of compiled kernels under both versions of Triton that are tested: python -m tests.codegen.both_tritons

The one that is not installed is fetched into build/, alone, as it is only compiled with. Arguments go to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTED = ("3.6.0", "3.9.0")
REPORTS = ("tests/codegen/test_resources.py", "tests/gluon/test_compiled.py")


def other() -> Path:
    """The folder of the tested version that is not installed."""
    wanted = next(each for each in TESTED if each != version("triton"))
    folder = ROOT / "build" / f"triton-{wanted}"
    if not (folder / "triton").is_dir():
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--target", str(folder), f"triton=={wanted}"], check=True)
    return folder


def main() -> int:
    environment = os.environ | {"PATTERNCC_TEST_TRITON": os.environ.get("PATTERNCC_TEST_TRITON") or str(other())}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", *REPORTS, *sys.argv[1:]]
    return subprocess.call(command, cwd=ROOT, env=environment)


if __name__ == "__main__":
    sys.exit(main())
