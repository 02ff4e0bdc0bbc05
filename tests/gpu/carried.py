"""Kernels that were compiled where no GPU is, for a machine that has one and little time.

Triton finds a compiled kernel by a hash of its source, its options, the kind of the GPU and Triton itself: one of
another Triton is not found, and compiled again. Where its files lie it keeps as whole paths, which are others there.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

FILE = "compiled.tar.xz"  # beside the tests, in the folder that is carried
KEPT = (".cubin", ".json")  # what a launch needs: not the steps before, nor libraries of a machine's own compiler


def pack(cache: Path, file: Path) -> int:
    """How many kernels of Triton's cache are in the file that is written."""
    found = sorted(path for path in cache.glob("*/*") if path.suffix in KEPT and path.is_file())
    with tarfile.open(file, "w:xz") as archive:
        for path in found:
            archive.add(path, path.relative_to(cache).as_posix(), recursive=False)
    return sum(path.suffix == ".cubin" for path in found)


def unpack(file: Path, cache: Path) -> int:
    """The same, once they are in a cache of Triton."""
    with tarfile.open(file) as archive:
        archive.extractall(cache, filter="data")
    count = 0
    for group in cache.glob("*/__grp__*.json"):
        names = json.loads(group.read_text())["child_paths"]
        here = {name: str(group.parent / name) for name in names if (group.parent / name).is_file()}
        group.write_text(json.dumps({"child_paths": here}))
        count += any(name.endswith(".cubin") for name in here)
    return count
