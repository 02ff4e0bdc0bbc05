"""What is prepared for a machine with a GPU runs there alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu.prepare import main

ALONE = """\
import sys
for name in ("patterncc", "codegen_templates", "pydantic", "yaml"):
    sys.modules[name] = None
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-m", "interpret or not gpu", "-k", sys.argv[1]]))
"""


@pytest.mark.slow
def test_it_needs_torch_triton_and_pytest_only(tmp_path: Path) -> None:
    """In the interpreter; a changed mask of one package is seen."""
    main(tmp_path)

    def alone(which: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "TRITON_INTERPRET": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        environment.pop("PYTHONPATH", None)
        command = [sys.executable, "-c", ALONE, which]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    done = alone("masks or parts_without or dim_24")
    assert done.returncode == 0 and "skipped" not in done.stdout, done.stdout + done.stderr
    pattern = tmp_path / "packages" / "gpu_tokens" / "pattern.py"
    pattern.write_text(pattern.read_text().replace('"window": (21, ', '"window": (22, '))
    done = alone("masks and tokens")
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout + done.stderr
