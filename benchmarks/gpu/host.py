"""Microseconds of Python a call, on small tensors, whose kernels are done before the next call."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Iterator

import torch

from benchmarks.gpu.attention import call_of
from benchmarks.gpu.cases import by_name
from benchmarks.gpu.ceilings import causal
from benchmarks.gpu.device import Device

TOKENS, LENGTH, PAGE = 1024, 4096, 16
AT_ONCE = 25  # calls that no wait is between: the GPU's queue holds many more


def measure(device: Device, *, case: str, **_: object) -> Iterator[dict[str, object]]:
    """A row for each call: microseconds until it returns, the median and the least."""
    facts = by_name(case)
    package = importlib.import_module(facts.module)
    tokens, length = (32, 64) if device.toy else (TOKENS, LENGTH)
    inputs = device.sequences(facts, 1, tokens)
    leaves = [x.clone().requires_grad_() for x in inputs]
    caches = device.random(2, length // PAGE, PAGE, facts.kv_heads, facts.head_dim)
    table = torch.arange(length // PAGE, dtype=torch.int32, device=device.name)[None]
    token, lengths = device.random(1, 1, facts.heads, facts.head_dim), device.ints(length)
    step = token, *caches.unbind(), table, lengths
    calls = {
        "dense attention by SDPA": call_of(causal, inputs),
        "attention": call_of(package.attention, inputs),
        "attention, for training": lambda: package.attention(*leaves),
        "backward": call_of(package.attention, leaves),
        "decode": lambda: package.decode(*step),
    }
    for what, call in calls.items():
        median, least = microseconds(device, call)
        yield {"what": what, "host_us": median, "least_us": least}


def microseconds(device: Device, call: Callable[[], object]) -> tuple[float, float]:
    """Microseconds of one call that has been made before."""
    for _ in range(1 if device.toy else 10):
        call()
    taken: list[float] = []
    for _ in range(1 if device.toy else 40):
        device.wait()
        for _ in range(1 if device.toy else AT_ONCE):
            begin = time.perf_counter()
            call()
            taken.append(time.perf_counter() - begin)
    device.wait()
    return round(statistics.median(taken) * 1e6, 2), round(min(taken) * 1e6, 2)
