"""What the figures were measured on, and on which versions."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

INFO = Path("/proc/cpuinfo")
FEATURES = {  # as Linux calls them, on x86 and on Arm
    "avx2": "AVX2", "fma": "FMA", "f16c": "F16C", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 bf16",
    "avx512_fp16": "AVX-512 fp16", "amx_tile": "AMX", "amx_bf16": "AMX bf16", "amx_fp16": "AMX fp16",
    "asimdhp": "NEON fp16", "bf16": "NEON bf16", "sve": "SVE", "svebf16": "SVE bf16", "sme": "SME",
}  # fmt: skip
WRITTEN = Path(__file__).parent / "commit.txt"


def describe() -> dict[str, object]:
    """Processor, memory, accelerator and versions: everything that a reader needs to place a figure."""
    return {
        "commit": _commit(),
        "processor": _processor(),
        "cpu_features": features(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "accelerator": _accelerator(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "triton", "numpy")},
    }


def _commit() -> str | None:
    """The commit of the measured code: what `prepare` wrote, or this clone's, marked where files changed since."""
    if WRITTEN.exists():
        return WRITTEN.read_text().strip()
    try:
        command = ["git", "describe", "--always", "--abbrev=10", "--dirty", "--exclude=*"]
        done = subprocess.run(command, cwd=WRITTEN.parent, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None


def features(info: Path = INFO) -> list[str]:
    """The instructions that matter to matrix products and that the system says this processor has; [] where it says
    nothing."""
    values = _cpuinfo(info)
    flags = {*values.get("flags", "").split(), *values.get("Features", "").split()}
    return [name for flag, name in FEATURES.items() if flag in flags]


def _processor() -> str:
    return _cpuinfo(INFO).get("model name") or platform.processor() or platform.machine()


def _cpuinfo(info: Path) -> dict[str, str]:
    """Fields and values that /proc/cpuinfo has of the last processor; empty where there is no such file."""
    if not info.exists():
        return {}
    fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in fields.items()}


def _memory_gib() -> float | None:
    if not hasattr(os, "sysconf"):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _accelerator() -> str | None:
    torch = sys.modules.get("torch")
    if not torch or not torch.cuda.is_available():
        return None
    gib = torch.cuda.get_device_properties(0).total_memory / 2**30
    return f"{torch.cuda.get_device_name()}, {gib:.0f} GiB"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
