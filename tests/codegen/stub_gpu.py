"""A process that launches kernels of packages on a GPU that is not there: python stub_gpu.py, with orders as JSON on
stdin. The driver answers like that GPU's, and writes down what it is given to load and to launch.

Tensors are the CPU's and float16, which the package sends to its kernels as they are when Triton's interpreter is asked
for; the kernels are none of the interpreter's, since they are imported before.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import driver
from triton.runtime.jit import JITFunction

PAGE, PAGES = 64, 64  # pages enough for several programs to share the keys of a step


class StubGpu:
    """What Triton asks of a driver, and in `seen` what it told."""

    def __init__(self, arch: int | str) -> None:
        self.target = GPUTarget("cuda", arch, 32) if isinstance(arch, int) else GPUTarget("hip", arch, 64)
        self.seen: dict[str, list[Any]] = {"asked": [], "loaded": [], "launched": []}
        self.utils = self

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 7

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 232448}

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[int, ...]:
        self.seen["loaded"].append([name, hashlib.sha256(binary).hexdigest(), shared])
        return 1, 100 + len(self.seen["loaded"]), 32, 0, 1024

    def unload_module(self, module: int) -> None:
        pass

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        about = [metadata.name, dict(source.signature), sorted(map(str, source.constants.items())), str(source.attrs)]

        def launch(*given: Any) -> None:
            grid, (stream, function, packed, _metadata, _enter, _leave), arguments = given[:3], given[3:9], given[9:]
            shown = [[list(x.shape), list(x.stride())] if isinstance(x, torch.Tensor) else x for x in arguments]
            self.seen["launched"].append([*about, grid, stream, function, repr(packed), shown])

        return launch


def imported(folder: Path, arch: str, name: str) -> ModuleType:
    """The package in a folder; its launchers find `arch`, with 132 processors."""
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec and spec.loader
    package = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    requests = importlib.import_module(f"{name}.requests")
    requests.arch, requests.processors = lambda device: arch, lambda device: 132
    for module in ("launch", "launch_backward"):
        importlib.import_module(f"{name}.{module}")
    return package


def calls(package: ModuleType, dtype: torch.dtype, odd: bool) -> None:
    """Attention with gradients, of plain and packed sequences, over pages, and decoding. Odd: q is not aligned."""
    heads, kv_heads, dim, length = 4, 2, 64, 300

    def some(*shape: int, shift: int = 0) -> torch.Tensor:
        count = torch.Size(shape).numel()
        return torch.zeros(count + shift, dtype=dtype)[shift:].view(shape).requires_grad_()

    q, k, v = some(1, heads, length, dim, shift=odd), *(some(1, kv_heads, length, dim) for _ in range(2))
    out = package.attention(q, k, v)
    out.backward(torch.ones_like(out))
    out, lse = package.attention(q, k, v, return_lse=True)
    (out.sum() + lse.sum()).backward()
    with torch.no_grad():
        package.attention(q[:, :, -1:], k, v)
    packed = [some(length, n, dim) for n in (heads, kv_heads, kv_heads)]
    ends = torch.tensor([0, 100, 300], dtype=torch.int32)
    package.attention_varlen(*packed, ends, ends, 200, 200).sum().backward()
    with torch.no_grad():
        cache = [some(2 * PAGES, PAGE, kv_heads, dim) for _ in range(2)]
        table = torch.arange(2 * PAGES, dtype=torch.int32).view(2, PAGES)
        lens = torch.tensor([300, 4000], dtype=torch.int32)
        package.attention_paged(packed[0], *cache, table, lens, torch.tensor([0, 100, 300], dtype=torch.int32))
        package.decode(some(2, 1, heads, dim), *cache, table, lens)
        package.decode(some(2, 1, heads, dim), *cache, table[:, :8], lens)  # too few keys to be shared


def forbid(*_: Any, **__: Any) -> Any:
    raise AssertionError("the JIT compiles")


def obey(order: dict[str, Any], name: str) -> dict[str, Any]:
    """Make all calls of the package in a folder twice; what the driver saw, and the notes.

    `jit`: "used", "forbidden", or "asked", and then nothing is compiled or launched. `triton`: another version.
    """
    gpu = StubGpu(order["target"])
    driver.set_active(gpu)  # type: ignore[arg-type]
    with ExitStack() as stack, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if order["jit"] == "forbidden":
            for owner, what in ((JITFunction, "_do_compile"), (triton.compiler, "compile"), (ASTSource, "make_ir")):
                stack.enter_context(mock.patch.object(owner, what, forbid))
        elif order["jit"] == "asked":
            asked = lambda kernel, *_: gpu.seen["asked"].append(kernel.fn.__name__)  # noqa: E731
            stack.enter_context(mock.patch.object(JITFunction, "_do_compile", asked))
        if "triton" in order:
            stack.enter_context(mock.patch.object(triton, "__version__", order["triton"]))
        package = imported(Path(order["folder"]), order["arch"], name)
        stack.enter_context(mock.patch.dict(os.environ, TRITON_INTERPRET="1"))
        for _ in range(2):
            calls(package, getattr(torch, order["dtype"]), order["odd"])
    return {**gpu.seen, "notes": [str(note.message) for note in caught if note.category is RuntimeWarning]}


if __name__ == "__main__":
    triton.knobs.runtime.interpret = False  # for good, whatever the environment says later
    print(json.dumps([obey(order, f"stubbed_{n}") for n, order in enumerate(json.load(sys.stdin))]))
