"""A package in the cache: its files as they were when they were written, or what is wrong with them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from patterncc.codegen.manifest import FILE, Manifest, sha256
from patterncc.errors import reason
from patterncc.runtime.bytecode import FOLDER as BYTECODE
from patterncc.runtime.bytecode import is_whole
from patterncc.runtime.trust import Untrusted, check_trust, doubt

PYTHONS = "__pycache__"  # what importing a package by its path leaves in it, and the cache never reads


@dataclass(frozen=True)
class Entry:
    """A package in the cache, or a copy of one."""

    name: str
    digest: str
    path: Path  # of the package, `…/<digest>/<name>`
    files: Mapping[str, bytes] | None = field(default=None, compare=False, repr=False)  # as found whole or written
    root: Path | None = field(default=None, compare=False, repr=False)  # of the cache; None for a copy

    def read(self) -> dict[str, bytes]:
        """Its files by path, manifest included.

        Raises ValueError saying what is wrong when they are not what was written, and Untrusted where another user
        could have written them. Python's own bytecode is passed over.
        """
        if self.root is not None:
            check_trust(self.root, self.path)
        try:
            data = (self.path / FILE).read_bytes()
            manifest = Manifest.read(data)
            if (manifest.name, manifest.digest) != (self.name, self.digest):
                raise ValueError(f"{FILE} belongs to another package")
            present = {name for name in self._present() if PYTHONS not in name.split("/")[:-1]} - {FILE}
            if present != set(manifest.files):
                raise ValueError(f"{', '.join(sorted(present ^ set(manifest.files)))}: missing, or not of the package")
            files = {name: (self.path / name).read_bytes() for name in manifest.files}
        except OSError as error:
            raise ValueError(f"{Path(error.filename or self.path).name}: {reason(error)}") from error
        for name, content in files.items():
            if sha256(content) != manifest.files[name]:
                raise ValueError(f"{name} was changed")
        return {**files, FILE: data}

    def check(self) -> None:
        """Raise what `read` raises, and ValueError for other files: Python's bytecode, changed bytecode."""
        self.read()
        if strange := sorted(name for name in self._present() if PYTHONS in name.split("/")[:-1]):
            raise ValueError(
                f"{strange[0]}{f' and {len(strange) - 1} more' * (len(strange) > 1)}: bytecode that patterncc neither "
                "wrote nor reads; remove it"
            )
        for file in sorted((self.path.parent / BYTECODE).glob("[!.]*")):
            if not is_whole(file):
                raise ValueError(f"{BYTECODE}/{file.name} was changed; it is not read, and written again")

    @property
    def contents(self) -> Mapping[str, bytes]:
        """Its files, as they were when they were checked: another process may clear the cache at any moment."""
        return self.read() if self.files is None else self.files

    @property
    def manifest(self) -> Manifest:
        return Manifest.read(self.contents[FILE])

    @property
    def bytes(self) -> int:
        return sum(_size(path) for path in self.path.rglob("*"))

    @property
    def written(self) -> float:
        """When, in seconds since 1970; 0 when another process has removed it meanwhile."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return 0

    def _present(self) -> Iterator[str]:
        """The paths of all files in the package's folder. Raises Untrusted for one that is not this user's alone."""
        for folder, folders, files in os.walk(self.path):
            for name in [*files, *(inner for inner in folders if os.path.islink(os.path.join(folder, inner)))]:
                yield (Path(folder) / name).relative_to(self.path).as_posix()
            for name in [*files, *folders] if self.root is not None else ():
                if why := doubt(Path(folder) / name):
                    raise Untrusted(*why)


def _size(path: Path) -> int:
    """Bytes of a file; of a folder, or of what has gone meanwhile, none."""
    try:
        found = path.stat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
