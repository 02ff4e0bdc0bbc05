"""Where a part runs, its clock, and the tensors that it works on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from benchmarks.gpu.cases import Case

FLUSHED = 256 << 20  # bytes written before each run: more than any L2 holds
HEAD_START = 4_000_000  # cycles that the GPU waits before each run, some 2 ms: meanwhile Python launches


def rate(amount: float, seconds: float) -> float:
    """Millions of millions a second, to five digits."""
    return float(f"{amount / seconds / 1e12:.5g}")


def spread(runs: Sequence[float]) -> float:
    """Half of what the middle half of the runs spans, as a share of the median.

    >>> spread([1.0, 2.0, 2.0, 2.2, 9.0]), spread([1.0])
    (0.05, 0.0)
    """
    if len(runs) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(runs, n=4, method="inclusive")
    return round((high - low) / 2 / middle, 6)


@dataclass(frozen=True)
class Times:
    """Seconds of one call: the median of several runs, their least and greatest, and half of what the middle half of
    them spans, as a share of the median; and what Python takes to launch it."""

    runs: int
    median: float
    least: float
    most: float
    host: float
    spread: float = 0.0

    def row(self, prefix: str = "") -> dict[str, float]:
        """As cells, in milliseconds."""
        seconds = {"ms": self.median, "ms_min": self.least, "ms_max": self.most, "host_ms": self.host}
        cells = {name: round(took * 1e3, 5) for name, took in seconds.items()} | {"runs": self.runs}
        cells["spread"] = round(self.spread, 5)
        return {prefix + name: value for name, value in cells.items()}

    def graph(self, name: str) -> dict[str, float]:
        """The median and its spread, of a replayed graph."""
        return {f"{name}_graph_ms": round(self.median * 1e3, 5), f"{name}_graph_spread": self.spread}


@dataclass(frozen=True)
class Device:
    """A GPU; or, to try the suite, the CPU with Triton's interpreter, where everything runs once."""

    toy: bool

    @property
    def name(self) -> str:
        return "cpu" if self.toy else "cuda"

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.toy else torch.bfloat16

    @property
    def tolerance(self) -> float:
        """Relative error by norm against fp64: bf16 keeps 8 bits of weights and results, fp32 sums hundreds."""
        return 2e-6 if self.toy else 1e-2

    @cached_property
    def _flush(self) -> Tensor:
        return torch.empty(FLUSHED // 4, dtype=torch.int32, device=self.name)

    def wait(self) -> None:
        """Until everything has run."""
        if not self.toy:
            torch.cuda.synchronize()

    def alternate(self, calls: Mapping[str, Callable[[], object]], limit_s: float = 0.6) -> dict[str, Times]:
        """Each call's times, run in turn, A B A B …, after one turn that is not counted: three turns at least, fifty at
        most, and none begins after `limit_s` a call. The caches of the device are flushed before each run. A GPU still
        waits while its work is launched: what is timed is the work, and the launching apart from it."""
        for call in () if self.toy else calls.values():
            call()
        self.wait()
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
        begin, turns = time.perf_counter(), 0
        while turns < (1 if self.toy else 50):
            if turns >= 3 and time.perf_counter() - begin > limit_s * len(calls):
                break
            for name, call in calls.items():
                taken[name].append(self._once(call))
            turns += 1
        columns = {name: tuple(zip(*runs, strict=True)) for name, runs in taken.items()}
        return {
            name: Times(turns, statistics.median(runs), min(runs), max(runs), statistics.median(host), spread(runs))
            for name, (runs, host) in columns.items()
        }

    def _once(self, call: Callable[[], object]) -> tuple[float, float]:
        """Seconds of the device, and of Python."""
        if self.toy:
            begin = time.perf_counter()
            call()
            return (took := time.perf_counter() - begin), took
        self._flush.zero_()
        torch.cuda._sleep(HEAD_START)
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        begin = time.perf_counter()
        call()
        host = time.perf_counter() - begin
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / 1e3, host

    def state(self) -> dict[str, int]:
        """The clock of the multiprocessors in MHz just after work, where NVIDIA's library can be asked: throttling is
        seen."""
        if self.toy:
            return {}
        try:
            return {"sm_mhz": torch.cuda.clock_rate()}
        except Exception:  # no pynvml, no permission, no such function on this GPU
            return {}

    def versions(self) -> dict[str, object]:
        """Versions of the libraries behind dense attention."""
        return {} if self.toy else {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}

    def random(self, *shape: int) -> Tensor:
        """Normally distributed numbers in the dtype that is measured."""
        return torch.randn(shape, dtype=self.dtype, device=self.name)

    def ints(self, *numbers: int) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int32, device=self.name)

    def sequences(self, case: Case, batch: int, tokens: int) -> list[Tensor]:
        """q, k and v [batch, heads, tokens, head_dim], the same for everyone that asks."""
        torch.manual_seed(0)
        return [self.random(batch, n, tokens, case.head_dim) for n in (case.heads, case.kv_heads, case.kv_heads)]
