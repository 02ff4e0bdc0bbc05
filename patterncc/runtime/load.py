"""Packages of the cache as modules, `patterncc.kernels.<name>_<start of the digest>`: two builds of one name may live
in one process, and what they define can be pickled and found again in another."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from types import ModuleType

from patterncc.codegen.package import is_name
from patterncc.runtime.cache import Cache, Entry
from patterncc.runtime.gallery import shipped

PARENT = "patterncc.kernels"
DIGITS = 12  # of the digest, in a module's name
_known: dict[str, Entry] = {}  # by module name, what this process asked for


def module_name(entry: Entry) -> str:
    return f"{PARENT}.{entry.name}_{entry.digest[:DIGITS]}"


def load(entry: Entry) -> ModuleType:
    """The imported package; the same module each time."""
    _known[module_name(entry)] = entry
    return importlib.import_module(module_name(entry))


def forget(entry: Entry) -> None:
    """Take the package out of this process's modules."""
    name = module_name(entry)
    _known.pop(name, None)
    for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
        del sys.modules[module]


class Checked(SourceFileLoader):
    """Reads sources as they were when their hashes were checked: the cache may be cleared before they are imported,
    and some of a package's modules are only imported when they are needed."""

    def __init__(self, name: str, path: str, files: Mapping[str, bytes]) -> None:
        super().__init__(name, path)
        self.files = files

    def get_data(self, path: str) -> bytes:
        data = self.files.get(os.path.basename(path))
        return super().get_data(path) if data is None else data


class Finder:
    """Finds the packages of the cache for Python's import; `patterncc.kernels` puts it on `sys.meta_path`."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, module = name.rpartition(".")
        if (entry := _known.get(package)) is not None:  # not in its folder any more, or Python had found it there
            return _spec(name, entry, f"{module}.py")
        entry = _known.get(name) or _in_cache(name)
        if entry is not None:
            return _spec(name, entry, "__init__.py")
        if name.startswith(f"{PARENT}.") and name.count(".") == PARENT.count(".") + 1:
            short = name.rpartition(".")[2]
            if short in shipped() or (is_name(short) and Cache.of_user().latest(short)):
                raise ImportError(f"{name} is no module of its own: write `from {PARENT} import {short}`", name=name)
            raise ImportError(
                f"no pattern {short!r} was compiled on this machine, and none of this name is shipped: "
                f"run `patterncc compile {short}.yaml`, or patterncc.load('{short}.yaml')",
                name=name,
            )
        return None


def _spec(name: str, entry: Entry, file: str) -> ModuleSpec | None:
    files, path = entry.contents, str(entry.path / file)
    if file not in files:
        return None
    where = [str(entry.path)] if file == "__init__.py" else None
    return spec_from_file_location(name, path, loader=Checked(name, path, files), submodule_search_locations=where)


def _in_cache(name: str) -> Entry | None:
    """The entry of a module's name: what another process pickled is found again."""
    found = re.fullmatch(rf"{re.escape(PARENT)}\.(\w+)_([0-9a-f]{{{DIGITS}}})", name)
    for entry in Cache.of_user().entries() if found else []:
        if found and entry.name == found[1] and entry.digest.startswith(found[2]):
            return Cache.of_user().find(entry.digest)
    return None
