"""Kernels compiled ahead of time: `patterncc compile --arch … --binaries` puts them into the package's folder.

A binary is for one kind of call: types of pointers and what is known of them, values of constants, and options. Triton
works that out for every launch, and asks its compiler once for each kind. Here it is asked in the compiler's place: it
gives the binary of that very kind, or says once what differs and lets Triton compile. Launches are Triton's own.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import triton
from triton.compiler import CompiledKernel

from ..pattern import NAME
from .configs import KERNEL_FILES

FOLDER = Path(__file__).parents[1]
warned: set[str] = set()


def use(*kernels: Any) -> None:
    """Have Triton look here before it compiles one of these kernels; nothing changes where there is nothing to find."""
    made = manifest().get("options", {}).get("binaries")
    if not made or triton.knobs.compilation.always_compile:
        return
    if made["triton"] != triton.__version__:
        return warn_once(f"they are built for triton {made['triton']}, here is {triton.__version__}")
    if edited := [file for name in KERNEL_FILES if not is_whole(FOLDER / (file := f"kernels/{name}.py"))]:
        return warn_once(f"they are built from another {', '.join(edited)}")
    for kernel in kernels:
        if hasattr(kernel, "_do_compile"):  # an interpreted kernel has none
            kernel._do_compile = partial(load_or_compile, kernel, kernel._do_compile, tuple(made["arches"]))


def load_or_compile(
    kernel: Any,
    compile: Any,
    arches: tuple[str, ...],
    key: str,
    signature: dict[str, str],
    device: int,
    constants: dict[tuple[int, ...], Any],
    options: Any,
    attributes: dict[tuple[int, ...], Any],
    warmup: bool,
) -> Any:
    """In the place of `JITFunction._do_compile` of the Triton that the binaries are of, private as it is."""
    known, target = kernel.device_caches[device][0], kernel.device_caches[device][2]
    name = next((arch for arch in arches if arch == arch_name(target.backend, target.arch)), None)
    if name is None:
        warn_once(f"they are built for {', '.join(arches)}, here is {arch_name(target.backend, target.arch)}")
    elif (file := find(kernel, name, call_of(signature, constants, attributes, options))) is not None:
        files = {path.name: str(path) for path in (file, binary_of(file))}
        source = kernel.ASTSource(kernel, signature, constants, attributes)
        known[key] = CompiledKernel(source, files, manifest()["files"][binary_of(file).name])
        return known[key]
    return compile(key, signature, device, constants, options, attributes, warmup)


def find(kernel: Any, arch: str, call: Mapping[str, str]) -> Path | None:
    """The description of the whole binary that is for this call; None, and the reason is warned, when there is none."""
    title = stem(kernel)
    calls = shipped(title, arch)
    nearest = min(calls, key=lambda file: len(differences(calls[file], call)), default=None)
    if nearest is None:
        return warn_once(f"there is no {title}", title)
    if differing := differences(calls[nearest], call):
        return warn_once(f"{title} is called with {', '.join(differing)}", title)
    if not is_whole(binary_of(nearest)):
        return warn_once(f"{binary_of(nearest).name}: not as written", title)
    return nearest


def differences(shipped: Mapping[str, str], call: Mapping[str, str]) -> list[str]:
    """The parts of a call that differ from the call that a binary was compiled for.

    >>> differences({"q": "*bf16", "BLOCK_Q": "128"}, {"q": "*bf16", "BLOCK_Q": "16"})
    ['BLOCK_Q 16 (not 128)']
    """
    names = [name for name in {**shipped, **call} if shipped.get(name) != call.get(name)]
    return [f"{name} {call.get(name)} (not {shipped.get(name)})" for name in names]


def call_of(
    signature: Mapping[str, str],
    constants: Mapping[tuple[int, ...], Any],
    attributes: Mapping[tuple[int, ...], Any],
    options: Any,
) -> dict[str, str]:
    """Everything that Triton specialises on: for each argument its type and attributes, or its value; and the options.

    >>> from types import SimpleNamespace
    >>> known = {(0,): [["tt.divisibility", 16]]}
    >>> call_of({"q": "*bf16", "n": "i32", "ROWS": "constexpr"}, {(2,): 64}, known, SimpleNamespace(num_warps=4))
    {'q': '*bf16 divisible by 16', 'n': 'i32', 'ROWS': '64', 'num_warps': '4'}
    """
    facts = {}
    for place, (name, kind) in enumerate(signature.items()):
        known = [f"{what.removeprefix('tt.')}={value}" for what, value in attributes.get((place,), ())]
        words = " ".join([kind, *known]).replace("divisibility=", "divisible by ")
        facts[name] = repr(constants[(place,)]) if kind == "constexpr" else words
    given = {name: repr(value) for name, value in vars(options).items() if name != "extern_libs"}  # paths
    return facts | given


@cache
def shipped(title: str, arch: str) -> dict[Path, dict[str, str]]:
    """The call that each binary of a kernel is for, by the file that describes it."""
    files = [FOLDER / name for name in manifest()["files"] if name.startswith(f"{arch}_{title}_")]
    whole = [file for file in files if file.suffix == ".json" and is_whole(file)]
    if damaged := [file.name for file in files if file.suffix == ".json" and file not in whole]:
        warn_once(f"{', '.join(damaged)}: not as written", title)
    return {file: json.loads(file.read_bytes())["call"] for file in whole}


def is_whole(file: Path) -> bool:
    """Whether the file is as the manifest says."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest() == manifest()["files"][file.relative_to(FOLDER).as_posix()]
    except (OSError, KeyError):
        return False


@cache
def manifest() -> dict[str, Any]:
    """The package's manifest; {} where there is none, or one that cannot be read."""
    try:
        found = json.loads((FOLDER / "manifest.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def stem(kernel: Any) -> str:
    """The kernel's name without the pattern's."""
    return kernel.fn.__name__.removesuffix(f"_{NAME}")


def arch_name(backend: str, arch: int | str) -> str:
    return f"sm_{arch}" if backend == "cuda" else str(arch)


def binary_of(file: Path) -> Path:
    return file.with_suffix(".hsaco" if file.name.startswith("gfx") else ".cubin")


def warn_once(reason: str, about: str = "") -> None:
    """Warn once for each kernel why Triton compiles it although a binary was shipped."""
    if about not in warned:
        warned.add(about)
        warnings.warn(f"{NAME}: Triton compiles, no binary in {FOLDER} fits: {reason}", RuntimeWarning, stacklevel=2)
