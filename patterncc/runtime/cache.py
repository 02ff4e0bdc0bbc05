"""The cache of compiled packages: an entry is whole or not there, whatever happens while it is written.

    packages/<digest>/<name>/   an entry: the importable package; beside it `.bytecode`, see bytecode.py
    tuned/<facts>.json          what `patterncc tune` measured, one result a file
    cpu/<facts>-<content>.so    the CPU path's kernels, compiled for this machine
    latest/<name>               the last one compiled under this name, and from which file; see notes.py
    seen/<key>                  the entry that this input gave before
    tmp/patterncc-writing-*/    what is being written, under the lock; any other of these was left by a killed process
    lock

The folder may hold other things too, even in folders of these names: what does not carry a name of the cache's own is
neither listed nor removed.

An entry's digest is over its content, so an entry is right when its hashes are. What is read is trusted only where
nobody else could have written it; see trust.py. How the folder is written is in writing.py, where it lies in place.py.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from patterncc.codegen.package import GeneratedPackage, check_name, is_of, write_files
from patterncc.errors import UsageError
from patterncc.runtime import notes
from patterncc.runtime.entry import Entry
from patterncc.runtime.libraries import Library, libraries
from patterncc.runtime.listing import named, unreadable
from patterncc.runtime.notes import DIGEST, Note
from patterncc.runtime.place import folder_of_user
from patterncc.runtime.trust import Untrusted
from patterncc.runtime.tuned import TunedFile, tuned_files
from patterncc.runtime.writing import close_to_others, temporary_folder, write_notes, writing

NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
MOST_LOOKS = 16  # at an entry that other processes replace again and again


class CacheWarning(UserWarning):
    """An entry was damaged, two files share a name, or a copy of a package is in the way of another module."""


@dataclass(frozen=True)
class Cache:
    """The cache in a folder, by default the user's."""

    root: Path

    @staticmethod
    def of_user() -> Cache:
        """The cache in `$PATTERNCC_CACHE_DIR`, else where this system keeps such things; UsageError where neither is
        known."""
        return Cache(folder_of_user())

    @property
    def packages(self) -> Path:
        return self.root / "packages"

    def find(self, digest: str) -> Entry | None:
        """The entry, if it is there and whole; a damaged one gives a warning.

        Raises Untrusted where another user could have written it.
        """
        entry, why = self.look(digest)
        if why:
            warnings.warn(f"{why}; it is built again", CacheWarning, stacklevel=1)  # who looks twice is told once
        return entry

    def look(self, digest: str, *, every_file: bool = False) -> tuple[Entry | None, str]:
        """The whole entry, or None and what is wrong with it; "" where nothing is there.

        An entry that is removed or replaced while it is read is looked at anew: that is no damage. With `every_file`,
        bytecode is checked too, and Untrusted is told, not raised.
        """
        for _ in range(MOST_LOOKS):
            before, entry = self._identity(digest), self._entry(digest)
            if before is None or entry is None:
                break
            try:
                if every_file:
                    entry.check()
                return replace(entry, files=entry.read()), ""
            except (ValueError, Untrusted) as error:
                if self._identity(digest) != before:
                    continue
                if isinstance(error, ValueError):
                    return None, f"{entry.path} is damaged: {error}"
                if every_file:
                    return None, error.diagnostics[0].message
                raise
        return None, ""

    def latest(self, name: str) -> Entry | None:
        """The entry compiled last under this name."""
        note = self.latest_note(name)
        return self.find(note.digest) if note else None

    def latest_note(self, name: str) -> Note | None:
        """What was compiled last under this name, and from which file."""
        return notes.read(self.root, "latest", check_name(name))

    def seen(self, key: str) -> Entry | None:
        """The entry that this input gave before."""
        note = notes.read(self.root, "seen", key)
        return self.find(note.digest) if note else None

    def checked(self) -> list[tuple[Entry, str]]:
        """Every entry, and what is wrong with any of its files, "" when nothing is; those that go meanwhile are left
        out."""
        found = [(entry, *self.look(entry.digest, every_file=True)) for entry in self.entries()]
        return [
            (whole or entry, why.partition(" is damaged: ")[2] or why) for entry, whole, why in found if whole or why
        ]

    def entries(self) -> list[Entry]:
        """Every entry, whole or not, by name and then by age."""
        digests = [path.name for path in named(self.packages, DIGEST) if os.path.isdir(path)]
        found = [entry for entry in map(self._entry, digests) if entry is not None]
        return sorted(found, key=lambda e: (e.name, e.written, e.digest))

    def store(self, package: GeneratedPackage, *, anew: bool = False) -> Entry:
        """Write the package, unless a whole entry is there; UsageError when the disk does not take it."""
        with writing(self.root):
            present = self._entry(package.digest)
            if anew or present is None or not _is_whole(present):
                target = self.packages / package.digest
                with temporary_folder(self.root) as folder:
                    (folder / "new").mkdir(mode=0o700)
                    write_files(folder / "new" / package.name, package.files)
                    close_to_others(folder / "new")
                    if target.exists():
                        target.rename(folder / "old")
                    (folder / "new").rename(target)
            path = self.packages / package.digest / package.name
            return Entry(package.name, package.digest, path, package.files, self.root)

    def remember(self, entry: Entry, key: str | None = None, note: Note | None = None) -> None:
        """Make the entry the latest of its name, and the answer to the input `key`, where that can be written.

        `note` says from which file it is; a warning tells when another file had the name before, and still has it.
        """
        note = note or Note(entry.digest)
        earlier = self.latest_note(entry.name)
        wanted = {("latest", entry.name): note.after(earlier)} | ({("seen", key): Note(entry.digest)} if key else {})
        if missing := {at: new for at, new in wanted.items() if notes.read(self.root, *at) != new}:
            try:
                write_notes(self.root, missing)
            except Untrusted:
                raise
            except UsageError:
                pass
        other = earlier.source if earlier and earlier.digest != entry.digest else None
        if other and note.source and not _is_same(other, note.source):
            warnings.warn(
                f"two files are named {entry.name}: {note.source} and, before, {other}; "
                f"`from patterncc.kernels import {entry.name}` gives the first of them",
                CacheWarning,
                stacklevel=1,
            )

    def clear(self, name: str | None = None) -> list[Entry]:
        """Remove every entry, and the CPU path's libraries, or the entries of a name; returns what entries went."""
        try:
            self.root.stat()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise unreadable(self.root, error) from error
        with writing(self.root), temporary_folder(self.root) as folder:
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
        if gone := [file for file in self.tuned() if name is None or is_of(file.name, name)]:
            with writing(self.root):
                for file in gone:
                    file.path.unlink(missing_ok=True)
        return gone

    def _entry(self, digest: str) -> Entry | None:
        folder = self.packages / digest
        try:
            names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        except OSError:
            return None
        name = names[0] if len(names) == 1 and NAME.fullmatch(names[0]) else "?"
        return Entry(name, digest, folder / name, root=self.root)

    def _identity(self, digest: str) -> tuple[int, ...] | None:
        """The identity (device, inode) of the entry's folder; None where there is none."""
        try:
            found = (self.packages / digest).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns


def _is_same(other: Path, path: Path) -> bool:
    """Whether both are one file; also when the other one is gone."""
    try:
        return os.path.samefile(other, path)
    except OSError:
        return True


def _is_whole(entry: Entry) -> bool:
    try:
        entry.read()
    except ValueError:
        return False
    return True
