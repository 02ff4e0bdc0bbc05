"""The kinds of calls that Triton's JIT tells apart: by types, alignment, constants and options.

Nobody writes down what a launcher passes to a kernel: the launcher runs, under a driver that only names the GPU, and
the JIT says what it would compile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

from patterncc.codegen.targets import backend
from patterncc.errors import counted


@dataclass(frozen=True)
class Kind:
    """A kind of call of a kernel, described by what the JIT specialises on."""

    kernel: Any
    purpose: str
    signature: dict[str, str]
    constants: dict[tuple[int, ...], Any]
    attributes: dict[tuple[int, ...], Any]
    options: Any

    @property
    def title(self) -> str:
        """The kernel, what for, and of dK and dV which rows if it is not for all."""
        known = {self.kernel.arg_names[place]: value for (place,), value in self.constants.items()}
        rows = {(True, False): ["near"], (False, True): ["strides"]}
        halves = bool(known.get("HAS_NEAR")), bool(known.get("HAS_STRIDES"))
        words = rows.get(halves, []) + [self.purpose] * bool(self.purpose)
        return f"{self.kernel.fn.__name__} {', '.join(words)}".strip()

    @property
    def config(self) -> str:
        return f"{counted(self.options.num_warps, 'warp')}, {counted(self.options.num_stages, 'stage')}"

    def compile(self, arch: str) -> Any:
        """The kernel compiled as the JIT would compile it, in Triton's cache where the JIT will look for it."""
        import triton
        from triton.backends.compiler import GPUTarget

        source = self.kernel.ASTSource(self.kernel, self.signature, self.constants, self.attributes)
        return triton.compile(source, target=GPUTarget(*backend(arch)), options=vars(self.options))


class NamedGpu:
    """All that the JIT asks of a driver before it compiles."""

    def __init__(self, arch: str) -> None:
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget(*backend(arch))

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def kinds(package: ModuleType, calls: Iterable[tuple[str, Callable[[], Any]]], arch: str) -> list[Kind]:
    """The distinct kinds of kernel calls that a package's launchers make in `calls`, in the order of their first use.

    A call is (purpose, callable). Nothing is compiled or launched."""
    from triton.runtime import driver

    driver.set_active(NamedGpu(arch))  # type: ignore[arg-type]
    found: dict[str, Kind] = {}
    purpose = ""

    def note(
        kernel: Any, key: str, signature: Any, device: int, constants: Any, options: Any, attributes: Any, warmup: bool
    ) -> None:  # returns None, so Triton launches nothing
        call = package.launch.binaries.call_of(signature, constants, attributes, options)
        kind = Kind(kernel, purpose, signature, constants, attributes, options)
        found.setdefault(json.dumps([kernel.fn.__name__, call]), kind)

    for module in (x for x in list(vars(package.launch).values()) if isinstance(x, ModuleType)):
        for kernel in list(vars(module).values()):
            if hasattr(kernel, "_do_compile"):
                kernel._do_compile = partial(note, kernel)
    for purpose, call in calls:  # noqa: B007 (read by `note`)
        call()
    return list(found.values())
