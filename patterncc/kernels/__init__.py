"""What was compiled on this machine, by name: `from patterncc.kernels import demo`.

The last pattern compiled under the name, as its file is now; a line on stderr says which file and digest that is. A
shipped pattern is compiled if it was not yet. `patterncc.load("FILE.yaml")` is always that file.
"""

from __future__ import annotations

import sys
from types import ModuleType

from patterncc.runtime.load import Finder

if Finder not in sys.meta_path:
    sys.meta_path.insert(0, Finder)  # before Python's own, which would take what it finds in a package's folder


def __getattr__(name: str) -> ModuleType:
    from patterncc.pipeline import load_compiled

    module = None if name.startswith("__") else load_compiled(name)  # such names are of Python itself
    if module is None:
        raise AttributeError(f"no pattern {name!r} was compiled on this machine")
    return module


def __dir__() -> list[str]:
    from patterncc.runtime.cache import Cache
    from patterncc.runtime.gallery import shipped

    return sorted({*shipped(), *(entry.name for entry in Cache.of_user().entries())})
