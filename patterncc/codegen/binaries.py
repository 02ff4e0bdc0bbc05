"""Binaries for a package: what its first calls would otherwise compile, in files beside its sources.

<arch>_<kernel>_<n>.cubin (.hsaco)   the binary
<arch>_<kernel>_<n>.json             Triton's metadata; the kind of call that the binary is for; what it takes

Triton runs in processes of their own, one a core: `python -m patterncc.codegen.binaries`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from patterncc.codegen.kinds import Kind, kinds
from patterncc.codegen.manifest import folders, sha256
from patterncc.codegen.package import GeneratedPackage, write_files
from patterncc.codegen.resources import Report, quiet_environment, read_report
from patterncc.codegen.targets import check_arch
from patterncc.codegen.usual_calls import TORCH_DTYPES, usual_calls

MOST_PROCESSES = 8  # each imports torch
LAUNCHERS = ("binaries", "forward", "backward", "cache")  # modules of the folder launch


def ship_binaries(package: GeneratedPackage, arches: Sequence[str], dtype: str) -> GeneratedPackage:
    """The package with binaries of its kernels for the usual calls, tensors of `dtype` on each of `arches`.

    ModuleNotFoundError without torch or Triton, RuntimeError with Triton's words when a kernel does not compile.
    """
    for arch in arches:
        check_arch(arch)
    if dtype not in TORCH_DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}: known are {', '.join(TORCH_DTYPES)}")
    for module in ("torch", "triton"):
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    if package.parts:
        shipped = {place: ship_binaries(part, arches, dtype) for place, part in package.parts.items()}
        facts = next(iter(shipped.values())).options["binaries"]
        return replace(package, options={**package.options, "binaries": facts}, parts=shipped)
    processes = min(os.cpu_count() or 1, MOST_PROCESSES)
    parts = -(-processes // len(arches))
    with tempfile.TemporaryDirectory(prefix="patterncc-") as temporary:
        folder, made, nothing = (Path(temporary, name) for name in ("package", "made", "nothing"))
        for place in (made, nothing):
            place.mkdir()
        write_files(folder, package.files)

        # lines have paths, which differ; and what was tuned here is not of the package
        environment = quiet_environment() | {"TRITON_DISABLE_LINE_INFO": "1", "PATTERNCC_CACHE_DIR": str(nothing)}

        def compile_part(arch: str, part: int) -> str:
            arguments = [folder, arch, dtype, made, part, parts]
            command = [sys.executable, "-m", "patterncc.codegen.binaries", *map(str, arguments)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"compiling {package.name} for {arch} failed:\n{done.stderr[-4000:]}")
            return done.stdout.splitlines()[-1]

        with ThreadPoolExecutor(processes) as pool:
            jobs = [pool.submit(compile_part, arch, part) for part in range(parts) for arch in arches]
            (version,) = {job.result() for job in jobs}
        files = {path.name: path.read_bytes() for path in sorted(made.iterdir())}
    facts = {"arches": list(arches), "dtype": dtype, "triton": version}
    options = {**package.options, "binaries": facts}
    return replace(package, options=options, own={**package.own, **files})


def reports(folder: Path) -> list[Report]:
    """What each kernel takes, of the binaries in a package's folder."""
    arches = json.loads((folder / "manifest.json").read_bytes())["options"]["binaries"]["arches"]
    files = [path for arch in arches for part in folders(folder) for path in sorted(part.glob(f"{arch}_*.json"))]
    return [Report(**json.loads(path.read_bytes())["report"]) for path in files]


def compile_kinds(found: Sequence[Kind], arch: str, limit: int, describe: Any) -> Iterator[tuple[str, bytes, bytes]]:
    """(suffix, binary, description) of each kind."""
    for kind in found:
        binary = kind.compile(arch)
        (written,) = (path for name, path in binary.metadata_group.items() if name.endswith(".json"))
        known = json.loads(Path(written).read_bytes())
        # versions stand in the manifest; names in capitals are the environment's
        known = {name: value for name, value in known.items() if name != "triton_version" and not name.isupper()}
        report = read_report(binary, kind.title, arch, limit, kind.config)
        call = describe(kind.signature, kind.constants, kind.attributes, kind.options)
        known |= {"hash": sha256(binary.kernel), "extern_libs": [], "call": call, "report": asdict(report)}
        text = json.dumps(known, indent=1, sort_keys=True) + "\n"
        yield "cubin" if "cubin" in binary.asm else "hsaco", binary.kernel, text.encode()


def import_launchers(folder: Path, arch: str) -> ModuleType:
    """The package in a folder of any name, all that launches kernels imported, believing that the GPU is an `arch`; its
    launchers take the plain kernels, which are those that binaries are made of."""
    os.environ["PATTERNCC_KERNELS"] = "triton"
    spec = importlib.util.spec_from_file_location(
        "launched", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec and spec.loader
    package = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    requests = importlib.import_module(f"{spec.name}.launch.requests")
    vars(requests)["arch"] = lambda device: arch  # before others take it from there
    for name in LAUNCHERS:
        importlib.import_module(f"{spec.name}.launch.{name}")
    return package


def main(folder: str, arch: str, dtype: str, made: str, part: str, parts: str) -> None:
    """Write one part of the binaries for an architecture, and print Triton's version."""
    import triton

    package = import_launchers(Path(folder), arch)
    found = kinds(package, usual_calls(package, arch, dtype), arch)
    taken = Counter[str]()
    names = []
    for kind in found:
        title = package.launch.binaries.stem(kind.kernel)
        names.append(f"{arch}_{title}_{taken[title]:02}")
        taken[title] += 1
    mine = slice(int(part), None, int(parts))
    limit = package.launch.configs.SHARED_BYTES[package.launch.configs.family(arch)]
    compiled = compile_kinds(found[mine], arch, limit, package.launch.binaries.call_of)
    for name, (suffix, binary, description) in zip(names[mine], compiled, strict=True):
        Path(made, f"{name}.{suffix}").write_bytes(binary)
        Path(made, f"{name}.json").write_bytes(description)
    print(triton.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
