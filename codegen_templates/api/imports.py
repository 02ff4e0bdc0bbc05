"""Imports of the package that do not disturb each other: operators, modules and rules of one stay as they are when
another package, or the same files with other content, is imported under its name. Notebooks that compile again do that.

An earlier import lives on under a name of its own, `_patterncc_imports.<number>_<name>`, with the sources that it had:
so what it imports later, or what torch.compile looks up by a module's name, is its own too.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from .. import pattern

FOLDER = Path(__file__).parents[1]
REGISTRY = "_patterncc_imports"  # a module of every process: the names of operators, and the latest import of a name

_name = __package__.rpartition(".")[0]
_sources: dict[str, bytes] = {}  # as they are at the import, by their place in the package
_modules: dict[str, ModuleType] = {}


class Package(ModuleType):
    """A module whose copies are the module itself and which is pickled by name, so that objects that hold it can be
    copied and pickled."""

    def __copy__(self) -> Package:
        return self

    def __deepcopy__(self, memo: object) -> Package:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if sys.modules.get(self.__name__) is not self:
            raise pickle.PicklingError(
                f"{self.__name__} was imported anew: this import of it has no name to be found by"
            )
        return import_module, (self.__name__,)


def operator_name(operator: str) -> str:
    """`<namespace>::<operator>`, of the package's name and its rules: the same in every process, but in each import of
    a process another."""
    facts = repr([(name, fact) for name, fact in vars(pattern).items() if name.isupper() and name != "FACTS"])
    base = f"{_name.replace('.', '_')}_{hashlib.sha256(facts.encode()).hexdigest()[:8]}"
    taken = vars(_registry()).setdefault("operators", set())
    names = (f"{base}_{n}::{operator}" if n > 1 else f"{base}::{operator}" for n in range(1, len(taken) + 2))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


def remember() -> None:
    """Note which modules this import has, unless the package has been imported anew under its name."""
    if __package__.rpartition(".")[0] == _name:
        _modules.update({name: module for name, module in sys.modules.items() if name.startswith(f"{_name}.")})


def retire() -> None:
    """Rename this import's modules, since the package is imported anew under its name."""
    registry = _registry()
    registry.retired = number = getattr(registry, "retired", 0) + 1  # type: ignore[attr-defined]
    root = f"{REGISTRY}.{number}_{_name.replace('.', '_')}"
    finder = Earlier(root, _sources)
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    sys.modules[root] = module_from_spec(finder.spec(root, "__init__.py"))  # for its place only: it is not executed
    for name, module in _modules.items():
        new = root + name.removeprefix(_name)
        module.__name__, module.__package__ = new, new if hasattr(module, "__path__") else new.rpartition(".")[0]
        if module.__spec__ is not None:
            module.__spec__.name = new
        sys.modules[new] = module


class Earlier:
    """Finds modules of an earlier import, by the sources that it had."""

    def __init__(self, root: str, sources: dict[str, bytes]) -> None:
        self.root, self.sources = root, sources

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        inner = name.removeprefix(f"{self.root}.").replace(".", "/")
        files = (f"{inner}/__init__.py", f"{inner}.py") if name.startswith(f"{self.root}.") else ()
        return next((self.spec(name, file) for file in files if file in self.sources), None)

    def spec(self, name: str, file: str) -> ModuleSpec:
        # A path where nothing is: else Triton would read there, for its kernels, what is there now.
        place = FOLDER / self.root / file
        folders = [str(place.parent)] if place.name == "__init__.py" else None
        loader = Kept(name, str(place), FOLDER / self.root, self.sources)
        found = spec_from_file_location(name, place, loader=loader, submodule_search_locations=folders)
        assert found is not None
        return found


class Kept(SourceFileLoader):
    """Reads sources that were kept, and other files where the package is."""

    def __init__(self, name: str, path: str, folder: Path, sources: dict[str, bytes]) -> None:
        super().__init__(name, path)
        self.folder, self.sources = folder, sources

    def get_data(self, path: str) -> bytes:
        file = Path(os.path.relpath(path, self.folder)).as_posix()
        return self.sources[file] if file in self.sources else (FOLDER / file).read_bytes()


def _registry() -> ModuleType:
    return sys.modules.setdefault(REGISTRY, ModuleType(REGISTRY))


def _begin() -> None:
    """Take the place of an earlier import of this name, and note what the sources are."""
    root, latest = sys.modules[_name], vars(_registry()).setdefault("latest", {})
    if _name in latest:
        latest[_name]()
    latest[_name] = retire
    root.__class__ = Package
    known = getattr(root.__loader__, "files", None)  # of the cache: read, and checked, already
    for path in () if known else FOLDER.rglob("*.py"):
        _sources[path.relative_to(FOLDER).as_posix()] = path.read_bytes()
    _sources.update({name: data for name, data in (known or {}).items() if os.path.splitext(name)[1] == ".py"})


_begin()
