"""Copies of packages outside the cache, to ship or to vendor: whoever has one may edit it."""

from __future__ import annotations

import stat
import sys
import warnings
from pathlib import Path

from patterncc.codegen.manifest import FILE, Manifest
from patterncc.codegen.package import write_files
from patterncc.errors import UsageError, reason
from patterncc.runtime.building import NEW, OLD, building
from patterncc.runtime.cache import CacheWarning
from patterncc.runtime.entry import Entry


def export(entry: Entry, folder: Path, *, force: bool = False) -> Path:
    """Copy the package to `folder/<name>`, in the place of an earlier copy, but of nothing else.

    Raises UsageError when something else stands there, or a copy that was edited, unless `force` gives that up; and
    when the disk does not take it.
    """
    target = folder / entry.name
    if entry.name in sys.stdlib_module_names:
        hidden = f"{target} hides Python's own module {entry.name!r} from programs that find {folder} first"
        warnings.warn(f"{hidden}: another name is safer", CacheWarning, stacklevel=2)
    try:
        there = _package(target)
        if target.is_symlink() or (target.exists() and there is None):
            raise UsageError(
                f"{target} exists and is no package of patterncc", "take another folder, or remove it first"
            )
        if there and not force and (edit := _edit(there)):
            raise UsageError(
                f"{target} was edited since patterncc wrote it: {edit}",
                "keep your edits in another folder, or give them up with --force",
            )
        folder.mkdir(parents=True, exist_ok=True)
        with building(target) as room:
            write_files(room / NEW, entry.contents)
            mode = stat.S_IMODE(folder.stat().st_mode)
            for place in (room / NEW, *(path for path in (room / NEW).rglob("*") if path.is_dir())):
                place.chmod(mode)  # who may read the folder may read the package
            if target.exists():
                target.rename(room / OLD)
            (room / NEW).rename(target)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {reason(error)}") from error
    return target


def _package(folder: Path) -> Entry | None:
    """The package in a folder, whole or not; None when what lies there is none."""
    try:
        manifest = Manifest.read((folder / FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return Entry(manifest.name, manifest.digest, folder)


def _edit(copy: Entry) -> str:
    """What differs in a copy from what its manifest says, "" when nothing does."""
    try:
        copy.read()
    except ValueError as error:
        return str(error)
    return ""
