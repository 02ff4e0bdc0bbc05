"""What the kernels of a package use on a GPU, found by compiling them for it: no GPU is needed.

Triton is imported in processes of their own, one for each architecture: compiling holds a core, and this process may
have Triton interpreting.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

from patterncc.codegen.kernel_calls import Call, calls
from patterncc.codegen.manifest import folders
from patterncc.codegen.targets import backend, check_arch
from patterncc.errors import counted

MATRIX_OPS = {"wgmma": r"wgmma\.mma_async", "tcgen05": r"tcgen05\.mma", "mma": r"mma\.sync", "mfma": r"v_mfma"}
SWITCHES = ("TRITON_", "PTXAS_", "DISABLE_", "NVPTX_", "AMDGCN_", "LLVM_", "MLIR_")  # of Triton, in the environment
ASYNC_COPIES = r"cp\.async\.c[ag]|cp\.async\.bulk\.tensor|(?:buffer|global)_load\w* .*\blds\b|global_load_lds"


@dataclass(frozen=True)
class Report:
    """One kernel on one architecture. Registers are counted for a thread, spills in registers of 4 bytes."""

    kernel: str
    arch: str
    registers: int
    spills: int
    shared_bytes: int
    shared_limit: int
    async_copies: int
    matrix_ops: int
    matrix_unit: str  # wgmma, tcgen05, mma, mfma; "" when sums of products are not left to one
    config: str


def report(folder: Path, arches: Sequence[str], dtype: str = "bf16", only: str = "") -> list[Report]:
    """Every kernel of the package in `folder` on each of `arches`, or those whose name and purpose `only` matches, a
    regular expression; RuntimeError with Triton's words when one fails."""
    for arch in arches:
        check_arch(arch)
    environment = quiet_environment()

    def compile_all(job: tuple[str, Path]) -> list[Report]:
        arch, part = job
        command = [sys.executable, "-m", "patterncc.codegen.resources", str(part), arch, dtype, only]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"compiling {folder.name} for {arch} failed:\n{done.stderr[-4000:]}")
        return [Report(**entry) for entry in json.loads(done.stdout.splitlines()[-1])]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = list(product(arches, folders(folder)))
        return [entry for entries in pool.map(compile_all, jobs) for entry in entries]


def quiet_environment() -> dict[str, str]:
    """For a process that compiles kernels: where Triton's tools and cache are, and none of its switches."""
    switches = [n for n in os.environ if n.startswith(SWITCHES) and not n.endswith(("_PATH", "_DIR", "_HOME"))]
    environment = {name: value for name, value in os.environ.items() if name not in switches}
    return environment | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parents[2]), *sys.path])}


def load_kernels(folder: Path) -> ModuleType:
    """The kernel modules of a package, without its `__init__`, which needs torch."""
    package = ModuleType("compiled")
    package.__path__ = [str(folder)]
    sys.modules["compiled"] = package
    configs = importlib.import_module("compiled.launch.configs")
    for name in ("pattern", *(f"kernels.{name}" for name in configs.KERNEL_FILES)):
        importlib.import_module(f"compiled.{name}")
    return package


def find_kernel(package: ModuleType, name: str) -> Any:
    """The kernel of that name, which in a generated package ends with the pattern's."""
    for module in (getattr(package.kernels, file) for file in package.launch.configs.KERNEL_FILES):
        for known, value in vars(module).items():
            if known in (name, f"{name}_{package.pattern.NAME}"):
                return value
    raise KeyError(name)


def compile_call(kernel: Any, call: Call, arch: str) -> Any:
    """What Triton compiles for `arch`: binaries, texts and metadata."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = call.constants | {name: None for name, kind in call.pointers.items() if kind is None}
    constants = {name: constants[name] for name in kernel.arg_names if name in constants}
    signature, aligned = {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name in call.pointers:
            signature[name] = f"*{call.pointers[name]}"
            aligned[(place,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "fp32" if name == "scale" else "i32"
    options = {"num_warps": call.warps, "num_stages": call.stages, "enable_fp_fusion": True}
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, target=GPUTarget(*backend(arch)), options=options)


def read_report(binary: Any, title: str, arch: str, limit: int, config: str) -> Report:
    """Registers and spills from the binary, copies and products from the last text in which they have names."""
    if backend(arch)[0] == "cuda":
        registers, spills = cubin_usage(binary.asm["cubin"])
        text = binary.asm["ptx"]
    else:
        text = binary.asm["amdgcn"]
        counts = [re.findall(rf"\.{key}:\s+(\d+)", text) for key in ("vgpr_count", "vgpr_spill_count")]
        registers, spills = (int(count[0]) for count in counts)
    products = {unit: len(re.findall(expression, text)) for unit, expression in MATRIX_OPS.items()}
    unit = max(products, key=products.__getitem__)
    return Report(
        kernel=title,
        arch=arch,
        registers=registers,
        spills=spills,
        shared_bytes=binary.metadata.shared,
        shared_limit=limit,
        async_copies=len(re.findall(ASYNC_COPIES, text)),
        matrix_ops=products[unit],
        matrix_unit=unit if products[unit] else "",
        config=config,
    )


def cubin_usage(cubin: bytes) -> tuple[int, int]:
    """Registers of a thread, and those of its stack frame, by the cuobjdump that Triton brings."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    [(registers, stack, local)] = re.findall(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", done.stdout)
    return int(registers), (int(stack) + int(local)) // 4


def main(folder: str, arch: str, dtype: str, only: str) -> None:
    """Print the reports of one architecture as JSON."""
    package = load_kernels(Path(folder))
    limit = package.launch.configs.SHARED_BYTES[package.launch.configs.family(arch)]
    reports = []
    for call in calls(package, arch, dtype):
        if not re.search(only, f"{call.kernel} {call.purpose}".strip()):
            continue
        kernel = find_kernel(package, call.kernel)
        title = f"{kernel.__name__} {call.purpose}".strip()
        config = f"{counted(call.warps, 'warp')}, {counted(call.stages, 'stage')}"
        reports.append(asdict(read_report(compile_call(kernel, call, arch), title, arch, limit, config)))
    print(json.dumps(reports))


if __name__ == "__main__":
    main(*sys.argv[1:])
