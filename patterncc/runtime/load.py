"""Packages of the cache as modules, `patterncc.kernels.<name>_<start of the digest>`: two builds of one name may live
in one process, and what they define can be pickled and found again in another."""

from __future__ import annotations

import errno
import importlib
import os
import re
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from patterncc.codegen.package import is_name
from patterncc.runtime import bytecode
from patterncc.runtime.cache import Cache
from patterncc.runtime.entry import Entry
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
    and some of a package's modules are only imported when they are needed. Python's own bytecode is never read."""

    def __init__(self, name: str, path: str, entry: Entry) -> None:
        super().__init__(name, path)
        self.entry = entry

    def get_data(self, path: str) -> bytes:
        inner = self._inner(path)
        if inner not in self.entry.contents:
            raise FileNotFoundError(errno.ENOENT, "not a file of the package", path)
        return self.entry.contents[inner]

    def get_code(self, fullname: str) -> CodeType:
        """The module's code, from the cache's own bytecode where that is right."""
        path = self.get_filename(fullname)
        source, folder, module = self.get_data(path), self.entry.path.parent, self._inner(path).replace("/", ".")
        code = bytecode.read(folder, module, source, path)
        if code is None:
            code = self.source_to_code(source, path)
            bytecode.write(folder, module, source, path, code)
        return code

    def _inner(self, path: str) -> str:
        return Path(os.path.relpath(path, self.entry.path)).as_posix()


class Finder:
    """Finds the packages of the cache for Python's import; `patterncc.kernels` puts it on `sys.meta_path`."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(f"{PARENT}."):
            return None
        package, _, inner = name.removeprefix(f"{PARENT}.").partition(".")
        entry = _known.get(f"{PARENT}.{package}")
        if inner:
            return entry and _spec(name, entry, inner.replace(".", "/"))
        if (entry := entry or _in_cache(name)) is not None:
            return _spec(name, entry, "")
        if package in shipped() or (is_name(package) and Cache.of_user().latest(package)):
            raise ImportError(f"{name} is no module of its own: write `from {PARENT} import {package}`", name=name)
        raise ImportError(
            f"no pattern {package!r} was compiled on this machine, and none of this name is shipped: "
            f"run `patterncc compile {package}.yaml`, or patterncc.load('{package}.yaml')",
            name=name,
        )


def _spec(name: str, entry: Entry, inner: str) -> ModuleSpec:
    """The import spec of the module or folder `inner` of the package, "" for the package itself. Raises
    ModuleNotFoundError for one that the manifest does not list, whatever lies in the folder by now."""
    for file in (f"{inner}/__init__.py".removeprefix("/"), f"{inner}.py"):
        if file in entry.contents:
            path = entry.path / file
            where = [str(path.parent)] if path.name == "__init__.py" else None
            loader = Checked(name, str(path), entry)
            spec = spec_from_file_location(name, str(path), loader=loader, submodule_search_locations=where)
            assert spec is not None
            return spec
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _in_cache(name: str) -> Entry | None:
    """The entry that a module's name refers to, so that objects pickled by another process can be loaded."""
    found = re.fullmatch(rf"{re.escape(PARENT)}\.(\w+)_([0-9a-f]{{{DIGITS}}})", name)
    for entry in Cache.of_user().entries() if found else []:
        if found and entry.name == found[1] and entry.digest.startswith(found[2]):
            return Cache.of_user().find(entry.digest)
    return None
