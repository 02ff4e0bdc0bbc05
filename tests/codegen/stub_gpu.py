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
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
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
    requests = importlib.import_module(f"{name}.launch.requests")
    requests.arch, requests.processors = lambda device: arch, lambda device: 132
    for module in ("forward", "backward"):
        importlib.import_module(f"{name}.launch.{module}")
    return package


HEADS, KV_HEADS, DIM = 4, 2, 64


def some(*shape: int, dtype: torch.dtype = torch.float16, shift: int = 0) -> torch.Tensor:
    """Numbers; `shift` of them stand before, at an aligned address."""
    count = torch.Size(shape).numel()
    return torch.zeros(count + shift, dtype=dtype)[shift:].view(shape).requires_grad_()


def ints(numbers: Any) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int32)


def usual(package: ModuleType, dtype: torch.dtype = torch.float16, shift: int = 0) -> None:
    """Attention with gradients, of plain and packed sequences, over pages, decoding, and a cache."""
    q, k, v = (some(1, n, 300, DIM, dtype=dtype, shift=shift) for n in (HEADS, KV_HEADS, KV_HEADS))
    out = package.attention(q, k, v)
    out.backward(torch.ones_like(out))
    out, lse = package.attention(q, k, v, return_lse=True)
    (out.sum() + lse.sum()).backward()
    package.attention(q[:, :, -1:].detach(), k, v)
    packed = [some(300, n, DIM, dtype=dtype) for n in (HEADS, KV_HEADS, KV_HEADS)]
    ends = ints([0, 100, 300])
    package.attention_varlen(*packed, ends, ends, 200, 200).sum().backward()
    with torch.no_grad():
        cache = [some(2 * PAGES, PAGE, KV_HEADS, DIM, dtype=dtype) for _ in range(2)]
        table, lens = torch.arange(2 * PAGES, dtype=torch.int32).view(2, PAGES), ints([300, 4000])
        package.attention_paged(packed[0], *cache, table, lens, ends)
        step = some(2, 1, HEADS, DIM, dtype=dtype)
        package.decode(step, *cache, table, lens)
        package.decode(step, *cache, table[:, :1], lens)  # too few keys to be shared
        for tokens in (0, 300):
            steps(package, tokens, dtype)


def steps(package: ModuleType, tokens: int, dtype: torch.dtype = torch.float16, **about: Any) -> None:
    """A prompt, and a token behind it, of a new cache; `about`: what it is made of."""
    cache = package.KVCache(2, dtype=dtype, **about)
    heads = about.get("heads", HEADS)
    for n in filter(None, (tokens, 1)):
        cache.step(*(some(2, n, own, DIM, dtype=dtype).transpose(1, 2) for own in (heads, heads // 2, heads // 2)))


def other_dtype(package: ModuleType) -> None:
    usual(package, torch.float32)


def not_aligned(package: ModuleType) -> None:
    usual(package, shift=1)


def covered(package: ModuleType) -> None:
    """Other lengths, batches, layouts and shares of the model; every one compiled for by the manual's word."""
    q, kv = some(3, 65, HEADS, DIM).transpose(1, 2), some(3, 1000, KV_HEADS, 2 * DIM).transpose(1, 2)
    k, v = kv[..., :DIM], kv[..., DIM:]
    package.attention(q, k, v, scale=-0.3).sum().backward()
    package.attention(q[:, 2:], k[:, 1:], v[:, 1:], head_offset=2).sum().backward()
    package.attention(q, k[:, :, 128:500], v[:, :, 128:500], q_start=935, kv_start=128).sum().backward()
    packed, ends = [some(90, n, DIM) for n in (HEADS, KV_HEADS, KV_HEADS)], ints([0, 0, 65, 90])
    out, lse = package.attention_varlen(*packed, ends, ends, 65, 65, return_lse=True)
    (out.sum() + lse.sum()).backward()
    with torch.no_grad():
        cache = some(2048, 16, KV_HEADS, 2 * DIM)
        caches = cache[..., :DIM], cache[..., DIM:]
        for requests in (1, 7, 256):
            table, lens = torch.zeros(requests, 2048, dtype=torch.int32), torch.full((requests,), 77, dtype=torch.int32)
            for n in (3, 40, 2048):
                package.decode(some(requests, 1, HEADS, DIM), *caches, table[:, :n].contiguous(), lens)
        for about in ({}, {"max_length": 900}, {"head_offset": 2, "heads": 2}):
            for tokens in (1, 65, 700):
                steps(package, tokens, **about)
        one = [x[:, :, 1:] for x in caches]
        package.attention_paged(some(66, 2, DIM), *one, table[:1], lens[:1], ints([0, 66]), head_offset=2)


def wide_lists(package: ModuleType) -> None:
    """Lists of 64 bits, as torch makes them unasked, wherever lists are taken; with sinks, and rows of no sequence."""
    packed = [some(300, n, DIM) for n in (HEADS, KV_HEADS, KV_HEADS)]
    ends, sinks = torch.tensor([0, 100, 290]), torch.zeros(HEADS, requires_grad=True)
    package.attention_varlen(*packed, ends, ends, 200, 200, sinks=sinks).sum().backward()
    with torch.no_grad():
        cache = [some(2 * PAGES, PAGE, KV_HEADS, DIM) for _ in range(2)]
        table, lens = torch.arange(2 * PAGES).view(2, PAGES), torch.tensor([300, 4000])
        package.attention_paged(packed[0], *cache, table, lens, ends, sinks=sinks)
        step = some(2, 1, HEADS, DIM)
        package.decode(step, *cache, table, lens)
        package.decode(step, *cache, table[:, :1], lens)


def few(package: ModuleType) -> None:
    """What the manual names as compiled when first called."""
    with torch.no_grad():
        q, k, v = (some(1, n, 300, DIM) for n in (HEADS, KV_HEADS, KV_HEADS))
        package.attention(q[:, :, :7], k, v)
        cache, table, lens = some(20, 32, KV_HEADS, DIM), torch.zeros(1, 20, dtype=torch.int32), ints([300])
        package.decode(some(1, 1, HEADS, DIM), cache, cache, table, lens)


def forbid(*_: Any, **__: Any) -> Any:
    raise AssertionError("the JIT compiles")


def look_at_types(gpu: StubGpu, kernel: Any, _key: str, signature: Any, _device: int, *given: Any) -> None:
    """Do the compiler's first step, which knows the type of each variable, and note the types of lists."""
    constants, options, attributes = given[:3]
    backend, context = make_backend(gpu.target), ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    about = options, backend.get_codegen_implementation(options), backend.get_module_map()
    ASTSource(kernel, signature, constants, attributes).make_ir(gpu.target, *about, context)
    lists = {name: signature[name] for name in ("q_starts", "kv_starts", "starts", "pages") if name in signature}
    gpu.seen["asked"].append([kernel.fn.__name__, lists])


def obey(order: dict[str, Any], name: str) -> dict[str, Any]:
    """Make `calls` of the package in `folder` twice; what the driver saw, and the notes.

    `jit`: "used", "forbidden", "asked", and then nothing is compiled or launched, or "typed", and then nothing but the
    types of what is compiled is looked at. `triton`: another version.
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
        elif order["jit"] == "typed":
            typed = lambda kernel, *given: look_at_types(gpu, kernel, *given)  # noqa: E731
            stack.enter_context(mock.patch.object(JITFunction, "_do_compile", typed))
        if "triton" in order:
            stack.enter_context(mock.patch.object(triton, "__version__", order["triton"]))
        package = imported(Path(order["folder"]), order["arch"], name)
        stack.enter_context(mock.patch.dict(os.environ, TRITON_INTERPRET="1"))
        for _ in range(2):
            globals()[order["calls"]](package)
    return {**gpu.seen, "notes": [str(note.message) for note in caught if note.category is RuntimeWarning]}


if __name__ == "__main__":
    triton.knobs.runtime.interpret = False  # for good, whatever the environment says later
    print(json.dumps([obey(order, f"stubbed_{n}") for n, order in enumerate(json.load(sys.stdin))]))
