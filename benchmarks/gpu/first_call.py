"""Seconds until the first calls of a new process are done. Each figure comes from a process of its own, with Triton's
cache empty or filled."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.cases import by_name

TOKENS = 4096
PATIENCE_S = 120.0


def measure(device: Any, *, what: str, case: str, folder: Path, **_: object) -> Iterator[dict[str, object]]:
    """Seconds from the import on, once torch is imported and the GPU awake. A first call compiles, unless binaries came
    with the package or an earlier process left its cache."""
    with tempfile.TemporaryDirectory() as caches:
        if what == "shipped binaries":
            if not (folder / "shipped").is_dir():
                raise FileNotFoundError(f"{folder / 'shipped'} is not there: no binaries were prepared")
            yield {"caches": "empty", **_process(what, case, folder / "shipped", caches, toy=device.toy)}
        else:
            for state in ("empty", "of an earlier process"):
                yield {"caches": state, **_process(what, case, folder / "packages", caches, toy=device.toy)}


def _process(what: str, case: str, packages: Path, caches: str, *, toy: bool) -> dict[str, object]:
    given = {"what": what, "case": case, "packages": str(packages), "toy": toy}
    names = ["TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"]
    names.append("PATTERNCC_CACHE_DIR")  # what was tuned here is not what binaries were made of
    cached = {name: os.path.join(caches, name) for name in names}
    command = [sys.executable, "-m", "benchmarks.gpu.first_call", json.dumps(given)]
    done = subprocess.run(command, env=os.environ | cached, capture_output=True, text=True, timeout=PATIENCE_S)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def once(*, what: str, case: str, packages: str, toy: bool) -> dict[str, object]:
    """Runs in the process: import, first forward, first backward, first token decoded, and the forward again."""
    import torch

    from benchmarks.gpu.device import Device

    sys.path.insert(0, packages)
    device, facts = Device(toy), by_name(case)
    tensors = device.sequences(facts, 1, 32 if toy else TOKENS)
    if what != "FlexAttention" or not toy:  # on the CPU it has no backward
        tensors = [x.requires_grad_() for x in tensors]
    device.wait()
    took: dict[str, object] = {}
    warnings.simplefilter("always")

    def timed(name: str, call: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = call()
        device.wait()
        took[name] = round(time.perf_counter() - begin, 4)
        return result

    if what == "FlexAttention":
        from benchmarks.gpu import peers

        shape = tensors[0].shape[2], facts.block if toy else peers.LEAST
        attention = timed("import_s", lambda: peers.flex_call(device, facts, *shape))  # it builds its tables
    else:
        attention = timed("import_s", lambda: importlib.import_module(facts.module)).attention
    out = timed("forward_s", lambda: attention(*tensors))
    if out.requires_grad:
        timed("backward_s", lambda: torch.autograd.grad(out.sum(), tensors))
    if what != "FlexAttention":
        package = sys.modules[facts.module]
        page = 64
        caches = device.random(2, 8, page, facts.kv_heads, facts.head_dim)
        places = torch.arange(8, dtype=torch.int32, device=device.name)[None], device.ints(8 * page)
        token = device.random(1, 1, facts.heads, facts.head_dim)
        timed("decode_s", lambda: package.decode(token, caches[0], caches[1], *places))
    timed("forward_again_s", lambda: attention(*tensors))
    return took


if __name__ == "__main__":
    with warnings.catch_warnings(record=True) as caught:
        figures = once(**json.loads(sys.argv[1]))
    compiled = sorted({str(warning.message) for warning in caught if "Triton compiles" in str(warning.message)})
    print(json.dumps(figures | ({"compiled_after_all": "; ".join(compiled)} if compiled else {})))
