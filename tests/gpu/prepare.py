"""What a machine with a GPU needs to test the kernels, made on one without: python -m tests.gpu.prepare FOLDER

There: cd FOLDER && python -m pytest. It needs torch, triton and pytest; neither patterncc nor what that needs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import patterncc
from patterncc import language, reference
from tests.gpu.patterns import LENGTH, PATTERNS

HERE = ("prepare.py", "rehearse.py", "test_carried.py", "test_lease.py", "test_prepare.py", "test_rehearsed.py")
HERE += ("test_watched.py",)  # all of them not for there
SETTINGS = """\
[pytest]
testpaths = tests
pythonpath = . packages
addopts = -ra --import-mode=importlib -m gpu
markers =
    interpret: runs kernels in Triton's interpreter
    gpu: needs a GPU
    slow: takes minutes
"""


def prepare(folder: Path) -> Path:
    """Packages of all patterns in `folder`/packages, and with them the hashes of the masks of their definition."""
    packages = folder / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    masks = {}
    for name, text in PATTERNS.items():
        file = folder / f"{name}.yaml"
        file.write_text(f"pattern: 1\nname: {name}\npromises: {{}}\n{text}\n")
        patterncc.compile(file, output=packages, force=True)
        mask = reference.dense_mask(language.load(file), 0, LENGTH)
        masks[name] = hashlib.sha256(bytes(mask.flatten().tolist())).hexdigest()
    (packages / "masks.json").write_text(json.dumps(masks, indent=2) + "\n")
    return packages


def main(folder: Path) -> None:
    """`prepare`, and the tests beside it."""
    prepare(folder)
    tests = folder / "tests" / "gpu"
    tests.mkdir(parents=True, exist_ok=True)
    for file in Path(__file__).parent.glob("*.py"):
        if file.name not in HERE:
            shutil.copy(file, tests)
    for package in (tests, tests.parent):  # an installed package may be called `tests`, too
        (package / "__init__.py").touch()
    (folder / "pytest.ini").write_text(SETTINGS)
    print(f"{len(PATTERNS)} packages and their tests are in {folder}. On the GPU's machine: python -m pytest {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
