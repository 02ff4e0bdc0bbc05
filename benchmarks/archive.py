"""One file of all that the gpu suite wrote, to be carried from the machine that measured."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path


def pack(file: Path, results: Path) -> Path:
    """A gzipped tar file: the results as they lie in their folder, and in `tuned` what `patterncc tune` measured for
    $PATTERNCC_CACHE_DIR, where that is set."""
    found = [(path, path.name) for path in sorted(results.glob("gpu.*")) if path.suffix != ".part"]
    if cache := os.environ.get("PATTERNCC_CACHE_DIR"):
        found += [(path, f"tuned/{path.name}") for path in sorted(Path(cache).glob("tuned/*.json"))]
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:gz") as archive:
        for path, name in found:
            archive.add(path, name, recursive=False)
    return file
