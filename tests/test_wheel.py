"""The wheel, installed away from the checkout: it holds templates and patterns, lists them, and compiles."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages: the wheel as an installer would unpack it."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run(site: Path, program: str, *arguments: str) -> str:
    """What a program prints that runs beside the checkout, with the wheel before everything else on its path."""
    environment = os.environ | {"PYTHONPATH": str(site), "PATTERNCC_CACHE_DIR": str(site.parent / "cache")}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=site.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


CLI = "from patterncc.cli import main; main()"


def test_it_holds_what_it_needs(site: Path) -> None:
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} == {"patterncc", "codegen_templates"}
    shipped = {path.name for path in (site / "patterncc" / "patterns").iterdir()}
    assert shipped == {path.name for path in (ROOT / "patterns").iterdir() if path.suffix in (".yaml", ".json")}
    for package in ("patterncc", "codegen_templates"):
        missing = {
            str(path.relative_to(ROOT))
            for path in (ROOT / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts and not (site / path.relative_to(ROOT)).exists()
        }
        assert not missing
    assert (site / "patterncc" / "py.typed").exists()
    assert list(site.glob("*.dist-info/licenses/LICENSE"))


def test_it_runs_away_from_the_checkout(site: Path) -> None:
    where = run(site, "import patterncc, codegen_templates as c; print(patterncc.__file__); print(c.__file__)")
    assert all(line.startswith(str(site)) for line in where.splitlines())
    listed = run(site, CLI, "list")
    assert all(path.stem in listed for path in (ROOT / "patterns").glob("*.yaml"))
    run(site, CLI, "compile", "demo")
    assert run(site, "from patterncc.kernels import demo; print(demo.PATTERN['name'])") == "demo\n"
