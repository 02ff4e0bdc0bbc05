"""One call of a cell between the marks of a profiler: python -m benchmarks.gpu.counted JSON (`counters` starts it)."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.counters import known
from benchmarks.gpu import serving
from benchmarks.gpu.attention import both_ways, call_of
from benchmarks.gpu.cases import by_name
from benchmarks.gpu.device import Device

WARM = 3  # calls before: they compile, and fill what is kept


def call(device: Device, name: str, direction: str) -> Callable[[], object]:
    """A function that does once what the cell times, with our kernels."""
    given = known(name, toy=device.toy).given
    facts = by_name(given["case"])
    package = importlib.import_module(facts.module)
    if given.get("what") == "decode":
        cache = serving.Cache.filled(device, facts, (given["tokens"],) * given["requests"])
        q = device.random(given["requests"], 1, facts.heads, facts.head_dim)
        return lambda: package.decode(q, cache.k, cache.v, cache.table, cache.lengths)
    inputs = dict(both_ways(device.sequences(facts, given["batch"], given["tokens"])))[direction]
    return call_of(package.attention, inputs)


def main() -> None:
    given = json.loads(sys.argv[1])
    sys.path.insert(0, str(Path(given["folder"]) / "packages"))
    device = Device(given["toy"])
    run = call(device, given["cell"], given["direction"])
    for _ in range(1 if device.toy else WARM):
        run()
    device.wait()
    if device.toy:
        run()
        print("called once: counters are a GPU's")
        return
    torch.cuda.profiler.start()
    run()
    device.wait()
    torch.cuda.profiler.stop()


if __name__ == "__main__":
    main()
