"""What is prepared for a machine with a GPU runs there alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.gpu.prepare import main
from tests.gpu.sanitized import TESTS, check
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
    ended = dict(line.split(": exit code ") for line in done.stdout.splitlines() if ": exit code " in line)
    codes = {name: int(rest.split(",")[0]) for name, rest in ended.items()}
    assert codes == {"right": 0, "decided": 0, "measured": 0, "profiled": 0, "sanitized": 1}
    assert "2 passed" in (out / "right.txt").read_text().splitlines()[-1]
    assert "are timed, about" in (out / "measured.txt").read_text()  # what it will take is said
    assert "nothing to profile" in (out / "profiled.txt").read_text()  # toy times miss no goal
    said = (out / "sanitized.txt").read_text()
    assert "memcheck: clean" in said and "racecheck: NOT CLEAN" in said and "synccheck: clean" in said
    assert (out / "decided" / "gpu.json").exists()
    with tarfile.open(out / "results.tar.gz") as archive:
        assert {"gpu.json", "gpu.md"} <= set(archive.getnames())
    tools = {tuple(line.split("|")[n] for n in (1, -1)) for line in (tmp_path / "seen").read_text().splitlines()}
    assert tools == {("memcheck", "1"), ("racecheck", "None"), ("synccheck", "None")}
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "profile",
        "--toy",
        "--cell",
        "toy, 1 x 60",
        "--direction",
        "backward",
    ]
    done = subprocess.run(
        command, cwd=folder, env=environment | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0 and "called once" in done.stdout, done.stdout + done.stderr


def test_the_selection_for_the_sanitizer_is_what_it_was_meant_to_be() -> None:
    """Forward and backward of both families, whole and packed, and one of the plain kernels with a window in tokens:
    each is a test."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "gpu"]
    done = subprocess.run(
        [*command, *(f"tests/gpu/{test}" for test in TESTS)], cwd=ROOT, capture_output=True, text=True
    )
    found = {line.split("/")[-1] for line in done.stdout.splitlines() if "::" in line}
    assert found == set(TESTS), done.stdout + done.stderr


def test_a_tool_that_does_not_end_has_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = tmp_path / "compute-sanitizer"
    slow.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    slow.chmod(0o700)
    assert check(str(slow), ["memcheck"], 0.5) == 124
    assert capsys.readouterr().out.startswith("memcheck: no verdict for 5 of 5: ")


def test_every_test_falls_to_one_process() -> None:
    names = [f"{name}[{n}]" for name in ("test_forward", "test_backward", "test_training", "test_x") for n in range(9)]
    shares = [share(names, number, 16) for number in range(16)]
    assert sorted(place for places in shares for place in places) == list(range(len(names)))
    loads = [sum(KERNELS.get(names[n].split("[")[0], 2) for n in places) for places in shares]
    assert max(loads) - min(loads) < 10  # the largest of them
