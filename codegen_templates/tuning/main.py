"""Measure configurations on the GPU that is here, and keep the best: python -m NAME.tuning

`patterncc tune` runs the same. What is stored for a direction, `tuned.py` answers from then on, at every length.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from time import perf_counter

import torch

from ..launch import configs
from ..launch.configs import FEW_ROWS, Config
from ..launch.outputs import WIDEST
from ..launch.requests import Requests, arch
from ..launch.tuned import DIRECTIONS, device_name
from ..pattern import BLOCK, CLASS_OF, HEAD_DIM, NAME, ROWS_PER_TILE_FREE, V_HEAD_DIM
from .search import Search, Step, Tuned, TuningError, out_of_memory
from .trials import Shape, layer_kinds, trials

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
LENGTH = 16384
SHORT = 277  # more than two tiles, and no multiple of anything
MANY_ROWS = 1 << 20
REGISTERS = 256  # of a thread
FLUSHED = 256 << 20  # bytes, more than any cache of a GPU
HEAD_START = 4_000_000  # cycles, some 2 ms: more than Python takes to launch a call
SPACE = {  # rows, keys, warps, stages; numbers of 4 bytes take half the rows and keys
    "forward": ((64, 128), (32, 64, 128), (4, 8), (2, 3, 4)),
    "decode": ((16,), (32, 64, 128), (2, 4, 8), (2, 3, 4)),
    "dq": ((32, 64, 128), (32, 64), (4, 8), (1, 2, 3)),
    "dkdv": ((32, 64), (32, 64, 128), (4, 8), (1, 2, 3)),
}
Clock = Callable[[Callable[[], object]], float]  # seconds of a call
Candidates = Callable[[str, str, int], Iterable[Config]]  # of a direction, an architecture and a number's bytes


def tune(
    directions: Sequence[str] = DIRECTIONS,
    *,
    dtype: torch.dtype = torch.bfloat16,
    length: int = LENGTH,
    batch: int = 1,
    short: int = SHORT,
    device: torch.device | None = None,
    clock: Clock | None = None,
    candidates: Candidates | None = None,
    tell: Callable[[Step], None] = lambda step: None,
) -> Iterator[Tuned]:
    """Measure one direction after the other: what has been yielded is stored.

    Candidates are held against dense attention in fp64 at `short` tokens, and timed at `length`.
    """
    shape = Shape(length, batch, dtype, device or find_device())
    clock, known = clock or GpuClock(shape.device), arch(shape.device)
    for direction in directions:
        if not (layers := layers_of(direction)):
            continue
        try:
            search = Search(direction, shape, trials(direction, shape, layers, short), clock)
        except torch.OutOfMemoryError as problem:
            raise out_of_memory(shape) from problem
        table = of_table(direction, known, dtype.itemsize)
        wanted = (candidates or space)(direction, known, dtype.itemsize)
        yield search.run(table, distinct(direction, [table, *wanted], layers), tell)


def layers_of(direction: str) -> list[tuple[int, int]]:
    """Kinds of layers to measure. Decoding is `forward` where the heads that share a tile fill more than few rows."""
    return [kind for kind in layer_kinds() if direction != "decode" or heads_of_a_tile(kind[0]) <= FEW_ROWS]


def of_table(direction: str, known: str, item: int) -> Config:
    """The configuration of the package's own table, used as long as nothing is measured."""
    if direction == "dkdv":
        return configs.dkdv(known, WIDEST, item)
    rows = FEW_ROWS if direction == "decode" else MANY_ROWS
    return (configs.dq if direction == "dq" else configs.forward)(known, WIDEST, item, rows)


def space(direction: str, known: str, item: int) -> Iterator[Config]:
    """The candidates whose sums and scores fit into the registers."""
    rows, keys, warps, stages = SPACE[direction]
    half = 2 if item > 2 else 1
    dim, v_dim = (1 << (width - 1).bit_length() for width in (HEAD_DIM, V_HEAD_DIM))
    is_amd = known.startswith("gfx")
    for m, n, w, s in product(rows, keys, warps, (1, 2) if is_amd else stages):
        m, n = max(m // half, 16), n // half
        held = {"dq": m * (dim + 2 * n), "dkdv": n * (dim + v_dim + 2 * m)}.get(direction, m * (v_dim + n))
        if held <= REGISTERS * w * (64 if is_amd else 32):
            yield Config(m, n, w, s)


def distinct(direction: str, candidates: Iterable[Config], layers: list[tuple[int, int]]) -> Iterator[Config]:
    """The candidates without repetitions: different ones may launch the same kernel, since a tile is cut to a block, or
    to the heads that share it."""
    seen = set()
    for config in candidates:
        request = Requests(1, 1 if direction == "decode" else MANY_ROWS, MANY_ROWS)
        tiles = tuple(request.tiling(config, heads_of_a_tile(layer))[:2] for layer, _ in layers)
        keys = config.keys
        if direction == "dkdv":
            tiles, keys = ((config.rows, 1),), keys if ROWS_PER_TILE_FREE else min(keys, BLOCK)
        launched = tiles, keys, config.warps, config.stages
        if launched not in seen:
            seen.add(launched)
            yield config


def heads_of_a_tile(layer: int) -> int:
    from ..launch.arrays import group_size

    return group_size(tuple(CLASS_OF[layer]), 0)


def find_device(whole: str = NAME) -> torch.device:
    """The GPU; TuningError when there is none, or kernels would not be compiled for it. `whole` names the package to
    run elsewhere: this one, or that of several shapes of which this is one."""
    if importlib.util.find_spec("triton") is None:
        raise TuningError("tuning needs triton, which is not installed here", "on Linux: pip install triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise TuningError("TRITON_INTERPRET=1: kernels would be interpreted, not measured", "unset it")
    if not torch.cuda.is_available():
        is_built = torch.version.cuda or torch.version.hip
        why = "sees none" if is_built else "is built without CUDA and ROCm"
        what = (
            "look at nvidia-smi or rocm-smi, and at CUDA_VISIBLE_DEVICES" if is_built else "install a build with them"
        )
        elsewhere = f"on a machine that has one, `python -m {whole}.tuning` needs the package, torch and triton only"
        raise TuningError(f"tuning needs a GPU, and torch {torch.__version__} {why}", f"{what}; {elsewhere}")
    return torch.device("cuda", torch.cuda.current_device())


class GpuClock:
    """The median of what the GPU takes of repeated calls, each with its cache emptied before. It waits while Python
    launches: what that takes would hide what a configuration gains."""

    def __init__(self, device: torch.device, budget: float = 0.1) -> None:
        self.budget = budget  # seconds
        self.flush = torch.empty(FLUSHED, dtype=torch.int8, device=device)

    def __call__(self, call: Callable[[], object]) -> float:
        times: list[float] = []
        begin = perf_counter()
        while len(times) < 5 or (perf_counter() - begin < self.budget and len(times) < 50):
            self.flush.zero_()
            torch.cuda._sleep(HEAD_START)
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            stop.record()
            stop.synchronize()
            times.append(start.elapsed_time(stop) / 1e3)
        return sorted(times)[len(times) // 2]


def main(arguments: Sequence[str] | None = None, whole: str = NAME) -> int:
    """The exit code of `python -m WHOLE.tuning ARGUMENTS`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {whole}.tuning", description="Measure configurations on this GPU."
    )
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--length", type=int, default=LENGTH, help="tokens")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--only", choices=DIRECTIONS, nargs="+", default=DIRECTIONS)
    given = parser.parse_args(arguments)
    options = {"dtype": DTYPES[given.dtype], "length": given.length, "batch": given.batch}
    try:
        device = find_device(whole)
        print(f"{NAME} on {device_name(device)}", file=sys.stderr)
        for result in tune(
            given.only, **options, device=device, tell=lambda step: print(step, file=sys.stderr, flush=True)
        ):
            print(f"{result}\n  {result.path}", flush=True)
    except TuningError as problem:
        print(f"{problem}\n  help: {problem.help}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what is printed above as a result is stored, the rest is not", file=sys.stderr)
        return 130
    return 0
