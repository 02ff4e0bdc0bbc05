"""What the gpu suite takes for right: wrong kernels, wrong masks and failures get no time, and their reason is kept."""

from __future__ import annotations

import importlib
import inspect
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.gpu import attention, cases, child, installed, serving, witness
from benchmarks.gpu import device as device_module
from benchmarks.gpu.cells import PARTS, Cell, cells
from benchmarks.gpu.device import Device
from patterncc import reference
from patterncc.language import loads

# What is changed in a package, and which measure must refuse it.
SPOILED = {
    "forward": ("launch/requests.py", "LOG2_E = 1.44", "LOG2_E = 1.45", attention, {"batch": 1, "tokens": 60}),
    "backward": ("api/ops.py", "is None else dout", "is None else dout * 1.0001",
                 attention, {"batch": 1, "tokens": 60}),
    "mask": ("pattern.py", "None, 4, 1, 1,", "None, 4, 2, 1,", attention, {"batch": 1, "tokens": 60}),
    "decode": ("api/ops_paged.py", " default_scale(scale)", " 1.001 * default_scale(scale)",
               serving, {"what": "decode", "requests": 2, "tokens": 60}),
    "paged": ("api/ops_paged.py", " default_scale(scale)", " 1.001 * default_scale(scale)",
              serving, {"what": "paged", "queries": (1, 5, 18), "lengths": (64, 40, 18)}),
    "varlen": ("api/ops_varlen.py", "is None else dout", "is None else dout * 1.0001",
               serving, {"what": "varlen", "lengths": (37, 1, 0, 18)}),
}  # fmt: skip


@pytest.fixture
def spoil(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A copy of the toy package under another name, with one text replaced, and its case."""

    def make(name: str, file: str, old: str, new: str) -> str:
        case = replace(cases.TOY, name=f"toy_{name}")
        folder = tmp_path / case.module
        shutil.copytree(prepared / "packages" / cases.TOY.module, folder)
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))
        monkeypatch.setitem(cases.CASES, case.name, case)
        monkeypatch.syspath_prepend(str(tmp_path))
        return case.name

    yield make


@pytest.mark.interpret
@pytest.mark.parametrize("name", SPOILED)
def test_a_wrong_kernel_is_not_timed(name: str, spoil: Any) -> None:
    file, old, new, module, given = SPOILED[name]
    case = spoil(name, file, old, new)
    rows = list(child.measured(Device(toy=True), module, Cell(name, 0, {"case": case, **given}), Path()))
    if name == "backward":  # the short sequence is checked in both directions before anything is timed
        assert len(rows) == 1
    [row] = rows
    assert row["wrong"] and row["note"].startswith("WRONG, so not timed") and "ms" not in row


class Event:
    """Like a GPU's, of the CPU's clock and of what a test adds to it."""

    added = 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at = 0.0

    def record(self) -> None:
        self.at = time.perf_counter() + Event.added

    def synchronize(self) -> None: ...

    def elapsed_time(self, later: Event) -> float:
        return (later.at - self.at) * 1e3


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Device:
    """Everything that is done on a GPU, done on the CPU."""
    monkeypatch.setattr(Device, "name", "cpu")
    monkeypatch.setattr(device_module, "FLUSHED", 64)
    stubs = {"Event": Event, "_sleep": lambda cycles: None}
    for name, stub in (stubs | dict.fromkeys(("synchronize", "empty_cache"), lambda: None)).items():
        monkeypatch.setattr(torch.cuda, name, stub)
    return Device(toy=False)


def test_runs_alternate_and_the_first_turn_is_not_counted(gpu: Device) -> None:
    order: list[str] = []
    took = {"a": iter([9e3, 2e3, 1e3, 3e3]), "b": iter([0.0] * 4)}  # seconds that no machine is slow by

    def call(name: str) -> None:
        order.append(name)
        Event.added += next(took[name])

    times = gpu.alternate({name: lambda name=name: call(name) for name in took}, limit_s=0.0)
    assert "".join(order) == "abababab"
    a = times["a"]
    assert a.runs == 3 and (a.least, a.median, a.most) == pytest.approx((1e3, 2e3, 3e3), abs=100)
    assert gpu.alternate({"": lambda: None}, limit_s=60.0)[""].runs == 50


@pytest.mark.interpret
def test_what_differs_on_a_gpu(gpu: Device, spoil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bf16, which the interpreter widens; where no graph can be captured, decoding's rate is that of a call."""
    monkeypatch.setattr(Device, "alternate", partialmethod(Device.alternate, limit_s=0.0))  # the least turns will do
    case = spoil("sound", "api/ops.py", "", "")
    given = {"what": "decode", "case": case, "requests": 1, "tokens": 40}
    [row] = child.measured(gpu, serving, Cell("decode", 0, given), Path())
    assert row["runs"] >= 3 and row["graph_note"] and row["tb_per_s"] > 0
    assert row["kept_bytes"] == 2 * 2 * 16 * 2 * 40  # K and V: each KV head has a query head that keeps all
    rows = list(child.measured(gpu, attention, Cell("it", 0, {"case": case, "batch": 1, "tokens": 40}), Path()))
    assert [row["direction"] for row in rows] == ["forward", "backward"]
    assert all(1e-4 < row["error"] < 1e-2 and row["ms_min"] <= row["ms"] <= row["ms_max"] for row in rows)


@pytest.mark.parametrize(
    "error, note",
    [(torch.OutOfMemoryError("CUDA out of memory.\nmore"), "out of memory: CUDA out of memory."),
     (RuntimeError("CUDA error: an illegal memory access"), "RuntimeError: CUDA error"),
     (installed.MissingPeerError("DKernel cannot be imported"), "MissingPeerError: DKernel cannot")],
)  # fmt: skip
def test_a_failure_leaves_its_cell_empty_with_the_reason(error: Exception, note: str) -> None:
    def measure(device: Device, **_: object) -> Iterator[dict[str, object]]:
        yield {"ms": 1.0}
        raise error

    first, last = child.measured(Device(toy=True), SimpleNamespace(measure=measure), Cell("x", 0, {"a": 1}), Path())
    assert first == {"cell": "x", "a": 1, "ms": 1.0}
    assert last["note"].startswith(note) and "more" not in last["note"]
    assert last.get("lost", False) == ("CUDA error" in str(error))  # then the process is of no more use


@pytest.mark.parametrize("case", [*cases.CASES.values(), cases.TOY], ids=lambda case: case.name)
def test_the_witness_states_the_pattern(case: cases.Case) -> None:
    """The suite's own rule, its count of pairs, and the definition."""
    pattern = loads(case.text)
    length = min(5 * case.block, 200) + 3
    t, u = torch.arange(length)[:, None], torch.arange(length)[None]
    mask = case.keeps(torch.arange(case.heads)[:, None, None], t, u)
    assert torch.equal(mask, reference.dense_mask(pattern, 0, length))
    assert case.pairs(length) == int(mask.sum())


@pytest.mark.parametrize("part", PARTS)
def test_every_cell_is_one_that_its_part_takes(part: str) -> None:
    """The real ones too, which nothing here can measure."""
    module = importlib.import_module(f"benchmarks.gpu.{part}")
    for toy in (True, False):
        chosen = cells(part, toy=toy)
        assert len({cell.name for cell in chosen}) == len(chosen)
        for cell in chosen:
            inspect.signature(module.measure).bind(Device(toy), folder=Path(), **cell.given)
            assert "case" not in cell.given or cases.by_name(cell.given["case"]).name == cell.given["case"]
            if module is serving:
                measure = getattr(serving, cell.given["what"])
                rest = {name: value for name, value in cell.given.items() if name not in ("what", "case")}
                inspect.signature(measure).bind(Device(toy), cases.TOY, ModuleType("package"), **rest)


def test_the_cells_are_those_that_were_asked_for() -> None:
    """The ancestor's lengths; 128k and 1M; blocks at equal density; head dims; grouped and mixed heads."""
    attended = {(cell.given["case"], cell.given["batch"], cell.given["tokens"]) for cell in cells("attention")}
    assert {("ancestor", 4, 1 << n) for n in range(10, 17)} | {("thin", 1, 1 << 17), ("thin", 1, 1 << 20)} <= attended
    at_16k = [cases.by_name(case) for case, batch, tokens in attended if (batch, tokens) == (1, 16384)]
    assert {case.block for case in at_16k} == {16, 32, 64, 128} and {case.head_dim for case in at_16k} == {64, 128, 256}
    assert any(case.kv_heads < case.heads for case in at_16k) and any(case.dense_heads for case in at_16k)
    blocks = [case for case in at_16k if case.name in ("ancestor", "block16", "block32", "block128")]
    densities = [case.density(16384) for case in blocks]  # a window of whole blocks is half a block more or less
    assert len(blocks) == 4 and max(densities) < 1.1 * min(densities)
    assert cases.CASES["thin"].density(131072) < 1 / 32


def test_errors_are_by_norm_and_nan_is_one() -> None:
    case, device = cases.TOY, Device(toy=True)
    torch.manual_seed(0)
    q, k, v = (x[0].double() for x in device.sequences(case, 1, 40))
    rows = torch.tensor([0, 7, 39])
    mask = case.keeps(torch.arange(case.heads)[:, None, None], rows[:, None], torch.arange(40)[None])
    share = case.heads // case.kv_heads
    wide = [x.repeat_interleave(share, 0) for x in (k, v)]
    out = torch.nn.functional.scaled_dot_product_attention(q[:, rows], *wide, attn_mask=mask)
    assert witness.within(device.tolerance, "it", witness.forward_squares(case, q, k, v, out, rows)) < 1e-14
    for spoiled in (out * 1.001, out.index_fill(1, torch.tensor([1]), torch.nan)):
        squares = witness.forward_squares(case, q, k, v, spoiled, rows)
        with pytest.raises(witness.WrongError):
            witness.within(device.tolerance, "it", squares)
        with pytest.raises(witness.WrongError):  # whatever stands beside it
            witness.within(device.tolerance, "it", torch.tensor([1e-30, 1.0]), squares, torch.tensor([1e-30, 1.0]))
