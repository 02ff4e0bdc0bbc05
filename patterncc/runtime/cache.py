"""The cache of compiled packages: an entry is whole or not there, whatever happens while it is written.

    packages/<digest>/<name>/   an entry: the importable package
    tuned/<facts>.json          what `patterncc tune` measured, one result a file
    cpu/<facts>-<content>.so    the CPU path's kernels, compiled for this machine
    latest/<name>               the digest of the last one compiled under this name
    seen/<key>                  the digest that this input gave before
    tmp/patterncc-writing-*/    what is being written, under the lock; any other of these was left by a killed process
    lock

The folder may hold other things too, even in folders of these names: what does not carry a name of the cache's own is
neither listed nor removed.

An entry's digest is over its content, so an entry is right when its hashes are.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from patterncc.codegen.manifest import FILE, Manifest, sha256
from patterncc.codegen.package import GeneratedPackage, check_name, write_files
from patterncc.errors import UsageError
from patterncc.runtime.libraries import Library, libraries
from patterncc.runtime.listing import named, unreadable
from patterncc.runtime.lock import locked
from patterncc.runtime.tuned import TunedFile, tuned_files

BYTECODE = "__pycache__"  # what importing an entry leaves in it
NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
DIGEST = re.compile("[0-9a-f]{64}")
WRITING = "patterncc-writing-"  # and eight characters: a temporary folder


class CacheWarning(UserWarning):
    """An entry was damaged and is built again, or a copy of it is in the way of another module."""


@dataclass(frozen=True)
class Entry:
    """A package in the cache."""

    name: str
    digest: str
    path: Path  # of the package, `…/<digest>/<name>`
    files: Mapping[str, bytes] | None = field(default=None, compare=False, repr=False)  # as found whole or written

    def read(self) -> dict[str, bytes]:
        """Its files, manifest included; ValueError saying what is wrong when they are not what was written."""
        try:
            data = (self.path / FILE).read_bytes()
            manifest = Manifest.read(data)
            if (manifest.name, manifest.digest) != (self.name, self.digest):
                raise ValueError(f"{FILE} belongs to another package")
            present = _files(self.path) - {FILE}
            if present != set(manifest.files):
                raise ValueError(f"{', '.join(sorted(present ^ set(manifest.files)))}: missing, or not of the package")
            files = {name: (self.path / name).read_bytes() for name in manifest.files}
        except OSError as error:
            raise ValueError(f"{Path(error.filename or self.path).name}: {error.strerror}") from error
        for name, content in files.items():
            if sha256(content) != manifest.files[name]:
                raise ValueError(f"{name} was changed")
        return {**files, FILE: data}

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
            return self.path.parent.stat().st_mtime
        except OSError:
            return 0


@dataclass(frozen=True)
class Cache:
    """The cache in a folder, by default the user's."""

    root: Path

    @staticmethod
    def of_user() -> Cache:
        """`$PATTERNCC_CACHE_DIR`, else where this system keeps such things; UsageError where neither is known."""
        given = os.environ.get("PATTERNCC_CACHE_DIR")
        try:
            return Cache(Path(given).absolute() if given else _default())
        except OSError as error:  # the working folder was removed
            said = f"PATTERNCC_CACHE_DIR is {given!r}, and the working folder that it starts from is gone"
            raise UsageError(said, "give the whole path") from error
        except RuntimeError as error:
            said = "no folder for the cache: HOME is not set, and this user has no home folder"
            raise UsageError(said, "set PATTERNCC_CACHE_DIR to a folder") from error

    @property
    def packages(self) -> Path:
        return self.root / "packages"

    def find(self, digest: str) -> Entry | None:
        """The entry, if it is there and whole; a damaged one gives a warning."""
        entry = self._entry(digest)
        if entry is None:
            return None
        try:
            return replace(entry, files=entry.read())
        except ValueError as error:
            said = f"{entry.path} is damaged: {error}; it is built again"
            warnings.warn(said, CacheWarning, stacklevel=1)  # one place: who looks twice is told once
            return None

    def latest(self, name: str) -> Entry | None:
        """The entry compiled last under this name."""
        digest = self.latest_digest(check_name(name))
        return self.find(digest) if digest else None

    def latest_digest(self, name: str) -> str | None:
        return self._recall("latest", name)

    def seen(self, key: str) -> Entry | None:
        """The entry that this input gave before."""
        digest = self._recall("seen", key)
        return self.find(digest) if digest else None

    def entries(self) -> list[Entry]:
        """Every entry, whole or not, by name and then by age."""
        digests = [path.name for path in named(self.packages, DIGEST) if os.path.isdir(path)]
        found = [entry for entry in map(self._entry, digests) if entry is not None]
        return sorted(found, key=lambda e: (e.name, e.written, e.digest))

    def store(self, package: GeneratedPackage, *, anew: bool = False) -> Entry:
        """Write the package, unless a whole entry is there; UsageError when the disk does not take it."""
        with self._writing():
            present = self._entry(package.digest)
            if anew or present is None or not _is_whole(present):
                target = self.packages / package.digest
                with self._folder() as folder:
                    (folder / "new").mkdir(mode=0o700)
                    write_files(folder / "new" / package.name, package.files)
                    if target.exists():
                        target.rename(folder / "old")
                    (folder / "new").rename(target)
            return Entry(package.name, package.digest, self.packages / package.digest / package.name, package.files)

    def remember(self, entry: Entry, key: str | None = None) -> None:
        """Make the entry the latest of its name, and the answer to the input `key`, where that can be written."""
        notes = {("latest", entry.name)} | ({("seen", key)} if key else set())
        if missing := [note for note in notes if self._recall(*note) != entry.digest]:
            try:
                with self._writing(), self._folder() as folder:
                    for place, name in missing:
                        self._make(self.root / place)
                        (folder / name).write_text(entry.digest, encoding="ascii")
                        os.replace(folder / name, self.root / place / name)
            except UsageError:
                return

    def clear(self, name: str | None = None) -> list[Entry]:
        """Remove every entry, and the CPU path's libraries, or the entries of a name; returns what entries went."""
        try:
            self.root.stat()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise unreadable(self.root, error) from error
        with self._writing(), self._folder() as folder:
            gone = [entry for entry in self.entries() if name in (None, entry.name)]
            for n, entry in enumerate(gone):
                entry.path.parent.rename(folder / f"{n}")
            notes = named(self.root / "latest", NAME if name is None else re.compile(re.escape(name)))
            if name is None:
                notes += [*named(self.root / "seen", DIGEST), *(kept.path for kept in self.libraries())]
            for note in notes:
                if not os.path.isdir(note):
                    note.unlink(missing_ok=True)
        return gone

    def libraries(self) -> list[Library]:
        """Every library of the CPU path, whole or not."""
        return libraries(self.root)

    def tuned(self) -> list[TunedFile]:
        """Every result of tuning, whole or not."""
        return tuned_files(self.root)

    def clear_tuned(self, name: str | None = None) -> list[TunedFile]:
        """Remove every result of tuning, or those of a pattern; returns what went."""
        if gone := [file for file in self.tuned() if name in (None, file.name)]:
            with self._writing():
                for file in gone:
                    file.path.unlink(missing_ok=True)
        return gone

    def _entry(self, digest: str) -> Entry | None:
        folder = self.packages / digest
        try:
            names = [path.name for path in folder.iterdir()]
        except OSError:
            return None
        return Entry(names[0], digest, folder / names[0]) if len(names) == 1 else Entry("?", digest, folder / "?")

    def _recall(self, place: str, name: str) -> str | None:
        try:
            text = (self.root / place / name).read_text(encoding="ascii")
        except (OSError, ValueError):
            return None
        return text if len(text) == 64 and set(text) <= set("0123456789abcdef") else None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the lock over the cache's folders; what the system refuses becomes a UsageError."""
        try:
            self._make(self.root)
            with locked(self.root / "lock"):
                self._make(self.packages)
                yield
        except OSError as error:
            raise UsageError(
                f"cannot write to the cache {self.root}: {error.strerror or error}",
                "set PATTERNCC_CACHE_DIR to a folder that takes it, or free some space with `patterncc cache clear`",
            ) from error

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """A temporary folder. The lock is held, so whatever else lies there was left by a process that died."""
        self._make(self.root / "tmp")
        for left in named(self.root / "tmp", re.compile(WRITING + "[a-z0-9_]{8}")):
            shutil.rmtree(left, ignore_errors=True)  # which follows no link
        folder = Path(tempfile.mkdtemp(dir=self.root / "tmp", prefix=WRITING))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @staticmethod
    def _make(folder: Path) -> None:
        """Create the folder for its owner alone; another user's is refused, since what lies in it would run."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if hasattr(os, "geteuid") and folder.stat().st_uid not in (os.geteuid(), 0):
            raise PermissionError(0, f"{folder} belongs to another user")


def _default() -> Path:
    """Where this system keeps caches; RuntimeError for a user without a home."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "patterncc" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "patterncc"
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / "patterncc"


def _files(folder: Path) -> set[str]:
    """The paths of all that lies in the folder and in its folders; bytecode left out."""
    inner = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    return {path.as_posix() for path in (path.relative_to(folder) for path in inner) if BYTECODE not in path.parts[:-1]}


def _size(path: Path) -> int:
    """Bytes of a file; of a folder, or of what has gone meanwhile, none."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def _is_whole(entry: Entry) -> bool:
    try:
        entry.read()
    except ValueError:
        return False
    return True
