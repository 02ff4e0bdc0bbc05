"""What the figures were measured on, and on which versions."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

WRITTEN = Path(__file__).parent / "commit.txt"


def describe() -> dict[str, object]:
    """Processor, memory, accelerator and versions: everything that a reader needs to place a figure."""
    return {
        "commit": _commit(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "accelerator": _accelerator(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "triton", "numpy")},
    }


def _commit() -> str | None:
    """Of the code that is measured: what `prepare` wrote, or this clone's, marked where it has been changed since."""
    if WRITTEN.exists():
        return WRITTEN.read_text().strip()
    try:
        command = ["git", "describe", "--always", "--abbrev=10", "--dirty", "--exclude=*"]
        done = subprocess.run(command, cwd=WRITTEN.parent, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None


def _processor() -> str:
    """Its name, and the widest vector instructions that matter to matrix products."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    values = {name.strip(): value.strip() for name, value in fields.items()}
    flags = values.get("flags", "").split()
    wide = [name for name, flag in (("AVX-512", "avx512f"), ("AMX", "amx_tile")) if flag in flags]
    return ", ".join([values.get("model name", platform.machine()), *wide])


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
