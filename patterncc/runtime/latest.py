"""What `from patterncc.kernels import NAME` gives: the last pattern compiled under the name, as its file is now."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from patterncc.codegen.manifest import FILE, Manifest
from patterncc.errors import PatternError, UsageError
from patterncc.runtime import gallery
from patterncc.runtime.cache import Cache, CacheWarning
from patterncc.runtime.entry import Entry
from patterncc.runtime.notes import Note
from patterncc.runtime.trust import Untrusted

_told: set[tuple[str, str]] = set()  # name and digest: once in a process

Build = Callable[["Path | str", "str | None"], Entry]  # from a file or a text, with the form that was asked for


def latest(name: str, cache: Cache, build: Build) -> Entry | None:
    """The entry of a name, and a line on stderr that says which it is; None when nothing was compiled under the name.

    Its file is compiled again where it has changed. Where there is no file any more, it is the entry that was compiled;
    a damaged one is built again from its own source, or the newest whole one of the name takes its place, with a
    warning. Raises PatternError when the file is wrong by now, UsageError saying what to do when nothing is left.
    """
    if (note := cache.latest_note(name)) is None:
        return None
    entry = _of_file(name, note, build)
    if entry is None:
        entry, why = cache.look(note.digest)
        entry = entry or _again(name, note, why, cache, build)
    _tell(entry, note)
    return entry


def _of_file(name: str, note: Note, build: Build) -> Entry | None:
    """The entry of the file as it is now; None where there is no file, it has another name by now, or the cache takes
    nothing."""
    if note.source is None or not os.path.isfile(note.source):
        return None
    try:
        entry = build(note.source, note.plan)
    except Untrusted:
        raise
    except UsageError:
        return None
    return entry if entry.name == name else None


def _again(name: str, note: Note, why: str, cache: Cache, build: Build) -> Entry:
    """The entry that replaces one that is damaged or gone: built again, or the newest whole one of the name."""
    why = why or f"the entry {note.digest[:12]} of {name} is gone"
    try:
        text = Manifest.read((cache.packages / note.digest / name / FILE).read_bytes()).source
        entry = build(text, note.plan)
    except Untrusted:
        raise
    except (OSError, ValueError, PatternError):
        pass
    else:
        if entry.name == name:
            warnings.warn(f"{why}; it is built again from its own source", CacheWarning, stacklevel=1)
            return entry
    for older in reversed([entry for entry in cache.entries() if entry.name == name]):
        if whole := cache.look(older.digest)[0]:
            message = f"{why}; the newest whole one of this name takes its place, {older.digest[:12]}"
            warnings.warn(message, CacheWarning, stacklevel=1)
            return whole
    file = note.source or f"{name}.yaml"
    raise UsageError(f"{name} cannot be imported: {why}", f"compile it again: `patterncc compile {file}`")


def _tell(entry: Entry, note: Note) -> None:
    is_shipped = note.source is not None and note.source.parent in gallery.FOLDERS
    if is_shipped or (entry.name, entry.digest) in _told or sys.stderr is None:
        return
    _told.add((entry.name, entry.digest))
    if note.source is None:
        message = "compiled from text"
    else:
        message = f"{note.source}{'' if os.path.isfile(note.source) else ', a file that is gone'}"
    if others := [str(path) for path in note.others if os.path.isfile(path)]:
        message += f"; not {', '.join(others)}, of the same name"
    print(f"patterncc: {entry.name} is {message} (digest {entry.digest[:12]})", file=sys.stderr)
