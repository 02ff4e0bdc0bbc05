"""Run kernels of a package on numpy.

    kernels = load(folder, "hopper", "index_map")   # modules of the package, on the emulated language
    launch(kernels.hopper.attn_fwd, grid, {"q": ..., "n": 5}, seed=1)

Arguments: arrays become pointers (`pointer`) or descriptors (`boxes`), whole numbers and floats become scalars, except
for those that the kernel takes as constexpr.
"""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .language import (
    LANGUAGE,
    MBARRIER,
    TMA,
    Pointer,
    emulated_range,
    fence_async_shared,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from .language import _store_wait as store_wait
from .machine import Machine, current
from .memory import Descriptor
from .values import BFLOAT16, FLOAT32, INT32, INT64, DType, Value

NUMBERED = itertools.count()


def _module(name: str, content: Mapping[str, Any]) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(content)
    module.__path__ = []  # type: ignore[attr-defined]
    return module


def _jit(function: Any = None, **_options: Any) -> Any:
    """Kernels stay functions of Python, with a `range` that counts in 32 bits."""
    if function is None:
        return _jit
    function.__globals__["range"] = emulated_range
    return function


def stand_ins(version: str) -> dict[str, ModuleType]:
    """Modules by name that take Triton's place, of this version of it ("3.6", "3.9")."""
    hopper = "triton.experimental.gluon.language.nvidia.hopper"
    mbarrier, tma = _module("mbarrier", MBARRIER), _module("tma", TMA[version] | {"store_wait": store_wait})
    products = {"warpgroup_mma": warpgroup_mma, "warpgroup_mma_wait": warpgroup_mma_wait}
    functions = products | {"fence_async_shared": fence_async_shared, "mbarrier": mbarrier, "tma": tma}
    language = _module("triton.language", LANGUAGE)
    gluon_language = _module("triton.experimental.gluon.language", LANGUAGE)
    gluon = _module("triton.experimental.gluon", {"jit": _jit, "language": gluon_language})
    basics = {
        "jit": _jit,
        "language": language,
        "__version__": f"{version}.0",
        "next_power_of_2": lambda n: 1 << (int(n) - 1).bit_length(),
        "cdiv": lambda a, b: -(-a // b),
    }
    return {
        "triton": _module("triton", basics),
        "triton.language": language,
        "triton.experimental": _module("triton.experimental", {"gluon": gluon}),
        "triton.experimental.gluon": gluon,
        "triton.experimental.gluon.language": gluon_language,
        "triton.experimental.gluon.language.nvidia": _module("nvidia", {}),
        hopper: _module(hopper, functions),
        "triton.experimental.gluon.nvidia": _module("nvidia", {}),
        "triton.experimental.gluon.nvidia.hopper": _module("host", {"TensorDescriptor": None}),
    }


@contextmanager
def emulated(version: str = "3.6") -> Iterator[None]:
    """While modules are imported: Triton is what stands in for it."""
    held = {name: module for name, module in sys.modules.items() if name == "triton" or name.startswith("triton.")}
    try:
        for name in held:
            del sys.modules[name]
        sys.modules.update(stand_ins(version))
        yield
    finally:
        for name in [name for name in sys.modules if name == "triton" or name.startswith("triton.")]:
            del sys.modules[name]
        sys.modules.update(held)


def load(folder: Path, *names: str, version: str = "3.6") -> ModuleType:
    """A package of its own with these modules of the package in `folder`, on the emulated language."""
    package = ModuleType(f"emulated_{next(NUMBERED)}")
    package.__path__ = [str(folder)]  # type: ignore[attr-defined]
    sys.modules[package.__name__] = package
    with emulated(version):
        for name in names:
            importlib.import_module(f"{package.__name__}.{name}")
    return package


def pointer(array: np.ndarray, dtype: DType | None = None) -> Pointer:
    kinds = {np.dtype(np.int32): INT32, np.dtype(np.int64): INT64, np.dtype(np.float32): FLOAT32}
    return Pointer(array, dtype or kinds[array.dtype])


def boxes(array: np.ndarray, box: tuple[int, ...], dtype: DType = BFLOAT16) -> Descriptor:
    return Descriptor(array, box, dtype)


def launch(kernel: Any, grid: tuple[int, ...], arguments: Mapping[str, Any], seed: int = 0) -> Machine:
    """Run all programs of the grid at once; raises what is wrong with the kernel."""
    names = {name: "constexpr" in str(note) for name, note in kernel.__annotations__.items()}
    given = {name: x if names.get(name) else _argument(x) for name, x in arguments.items()}
    sizes = tuple(grid) + (1,) * (3 - len(grid))
    own = Machine(seed)

    def body(place: tuple[int, ...]) -> Any:
        def run() -> None:
            current.task.place, current.task.grid = place, sizes
            current.task.shared = current.task.allocated = 0
            kernel(**given)

        return run

    places = list(itertools.product(*map(range, sizes)))
    own.run([(kernel.__name__, n, body(place)) for n, place in enumerate(places)])
    return own


def _argument(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return pointer(x)
    return Value(x) if isinstance(x, bool | int | float) else x
