"""What is prepared for a machine with a GPU runs there alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.gpu.prepare import main
from tests.gpu.sanitized import SELECTED, TOOLS, check
from tests.gpu.together import KERNELS, share

ROOT = Path(__file__).parents[2]

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


SANITIZER = """\
import os, sys
from pathlib import Path
with Path(os.environ["SANITIZED"]).open("a") as seen:
    print(*sys.argv[1:], os.environ.get("PYTORCH_NO_CUDA_MEMORY_CACHING"), sep="|", file=seen)
sys.exit("racecheck" in sys.argv)
"""


@pytest.mark.slow
def test_what_is_asked_of_a_borrowed_gpu_runs_in_toy_form(tmp_path: Path) -> None:
    """In the folder that is carried there, and with nothing else: each step says how it ended, in one call or alone."""
    folder, out, place = tmp_path / "folder", tmp_path / "out", tmp_path / "bin"
    for command in (["tests.gpu.prepare", str(folder)], ["benchmarks", "prepare", str(folder), "--toy"]):
        subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True, capture_output=True)
    place.mkdir()
    (place / "compute-sanitizer").write_text(f"#!{sys.executable}\n{SANITIZER}")
    (place / "compute-sanitizer").chmod(0o700)
    environment = os.environ | {"PATH": f"{place}{os.pathsep}{os.environ['PATH']}", "SANITIZED": str(tmp_path / "seen")}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-m", "tests.gpu.lease", str(out), "--toy"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr  # racecheck's
    *_, right, sanitized, measured = done.stdout.splitlines()
    assert right.startswith("right: exit code 0") and sanitized.startswith("sanitized: exit code 1")
    assert measured.startswith("measured: exit code 0")
    assert "2 passed" in (out / "right.txt").read_text().splitlines()[-1]
    said = (out / "sanitized.txt").read_text()
    assert "memcheck: clean" in said and "racecheck: NOT CLEAN" in said and "synccheck: clean" in said
    with tarfile.open(out / "results.tar.gz") as archive:
        assert {"gpu.json", "gpu.md"} <= set(archive.getnames())
    tools = [line.split("|") for line in (tmp_path / "seen").read_text().splitlines()]
    assert [line[1] for line in tools] == list(TOOLS) and [line[-1] for line in tools] == ["1", "None", "None"]


def test_the_selection_for_the_sanitizer_is_what_it_was_meant_to_be() -> None:
    """Forward and backward of both families, whole and packed, and one of the plain kernels with a window in tokens."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "gpu", "tests/gpu", "-k", SELECTED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = {line.split("::")[-1] for line in done.stdout.splitlines() if "::" in line}
    both = {
        f"{test}[{name}]"
        for test in ("test_forward", "test_backward")
        for name in ("gpu_wide-whole", "gpu_fine-packed")
    }
    assert found == both | {"test_training[bf16-gpu_tokens]"}, done.stdout


def test_a_tool_that_does_not_end_has_no_verdict(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    slow = tmp_path / "compute-sanitizer"
    slow.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    slow.chmod(0o700)
    assert check(str(slow), "memcheck", 0.5) == 124
    assert capfd.readouterr().out.startswith("memcheck: no verdict, it was ended after ")


def test_every_test_falls_to_one_process() -> None:
    names = [f"{name}[{n}]" for name in ("test_forward", "test_backward", "test_training", "test_x") for n in range(9)]
    shares = [share(names, number, 16) for number in range(16)]
    assert sorted(place for places in shares for place in places) == list(range(len(names)))
    loads = [sum(KERNELS.get(names[n].split("[")[0], 2) for n in places) for places in shares]
    assert max(loads) - min(loads) < 10  # the largest of them
