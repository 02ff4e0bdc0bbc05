"""Peak memory of one call, as the operating system counts it."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak(call: Callable[[], object]) -> int | None:
    """Bytes of resident memory that a call takes at most beyond what was held before it; None where only Linux would
    say. Freed memory is handed back before, so that what a call takes is seen even if another had the same."""
    try:
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        RESET.write_text("5")  # sets the peak to what is resident now
        before = _kib("VmRSS")
        call()
        return max(0, _kib("VmHWM") - before) * 1024
    except OSError:
        return None


def _kib(field: str) -> int:
    found = re.search(rf"{field}:\s*(\d+) kB", STATUS.read_text())
    return int(found[1]) if found else 0
