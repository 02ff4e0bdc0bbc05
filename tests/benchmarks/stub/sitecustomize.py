"""A GPU that is not there, for every process that has this folder on PYTHONPATH: torch says that it is an H200 and
computes on the CPU, and Triton compiles for it and launches on `driver.c`. Kernels write nothing, so no result is
looked at: what is tried is all that is done around them.
"""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.gpu import cells, witness

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
MAKERS = "arange empty empty_like empty_strided full ones randn randn_like randperm tensor zeros zeros_like"
FACTS = SimpleNamespace(multi_processor_count=132, total_memory=140 << 30)


class Event:
    def __init__(self, enable_timing: bool) -> None:
        self.at = 0.0

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None: ...

    def elapsed_time(self, later: Event) -> float:
        return (later.at - self.at) * 1e3


class Stream:
    cuda_stream = 0

    def wait_stream(self, other: Stream) -> None:
        assert isinstance(other, Stream)

    def synchronize(self) -> None: ...


class Graph:
    def replay(self) -> None: ...


def here(value: Any) -> Any:
    """The CPU where a GPU is asked for."""
    return CPU if value == GPU or str(value).startswith("cuda") else value


def redirect(owner: Any, name: str) -> None:
    made = getattr(owner, name)

    def make(*given: Any, **options: Any) -> Any:
        if "device" in options:
            options["device"] = here(options["device"])
        return made(*(here(x) if isinstance(x, torch.device | str) else x for x in given), **options)

    setattr(owner, name, make)


class Autocast(torch.autocast):
    def __init__(self, device_type: str, **options: Any) -> None:
        super().__init__(here(device_type).type, **options)


def installed() -> None:
    for name in MAKERS.split():
        redirect(torch, name)
    for name in ("to", "new_empty", "new_full", "new_zeros"):
        redirect(torch.Tensor, name)
    torch.Tensor.device = property(lambda self: GPU)
    torch.Tensor.is_cuda = property(lambda self: True)
    torch.autocast = Autocast
    torch._C._cuda_getCurrentRawStream = lambda device: 0
    stubs: dict[str, Any] = {"Event": Event, "Stream": Stream, "CUDAGraph": Graph}
    stubs |= {"current_stream": lambda device=None: Stream(), "stream": lambda stream: nullcontext()}
    stubs |= {
        "graph": lambda graph: nullcontext(),
        "is_available": lambda: True,
        "is_current_stream_capturing": lambda: False,
        "current_device": lambda: 0,
    }
    stubs |= {"get_device_capability": lambda device=None: (9, 0), "get_device_name": lambda device=None: "a stub"}
    stubs |= {
        "get_device_properties": lambda device=None: FACTS,
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
    }
    stubs |= {"device_count": lambda: 1, "_sleep": lambda cycles: None, "clock_rate": lambda: 1980}
    for name, stub in stubs.items():
        assert hasattr(torch.cuda, name)  # what torch does not have must not be had here
        setattr(torch.cuda, name, stub)

    chosen = cells.cells
    cells.cells = lambda part, toy=False, select="": chosen(part, toy=True)
    witness.within = lambda device, what, *squares: 0.0


if "STUB_LAUNCHES" in os.environ:  # not where doctests are looked for
    installed()
