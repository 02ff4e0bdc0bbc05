"""Reports of compiled kernels under both versions of Triton that are tested: python -m tests.codegen.both_tritons

The one that is not installed is fetched into build/, alone, as it is only compiled with. Arguments go to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import tritons

ROOT = Path(__file__).parents[2]
REPORTS = ("tests/codegen/test_resources.py", "tests/gluon/test_compiled.py")


def main() -> int:
    try:
        other = tritons.folder(fetches=True)
    except tritons.NoTritonError as why:
        sys.exit(str(why))
    environment = os.environ | {tritons.GIVEN: str(other)}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", *REPORTS, *sys.argv[1:]]
    return subprocess.call(command, cwd=ROOT, env=environment)


if __name__ == "__main__":
    sys.exit(main())
