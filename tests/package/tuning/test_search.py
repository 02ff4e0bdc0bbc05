"""The search for the best configuration: what is tried, what is refused, what is stored. Here the CPU path computes,
and a clock says what a test wants: `tests/kernels/test_tuning.py` runs kernels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.package.launch.tuned import part
from tests.package.made import PATTERNS, compiled
from tests.package.tuning.machine import CPU, FAST, SLOW, TABLE, Machine, failing, stored

pytest.importorskip("triton")


def test_the_fastest_is_stored_for_each_direction(machine: Machine) -> None:
    results = machine.tune()
    assert [result.direction for result in results] == ["forward", "decode", "dq", "dkdv"]
    for result in results:
        assert (result.config, result.seconds, result.table_seconds) == (FAST, 1.0, 2.0)
        assert result.measured == 3 and result.skipped == {} and result.path.is_file()
        assert stored(result.direction) == FAST
    assert not part("launch.tuned").tried


def test_it_is_taken_from_then_on(machine: Machine) -> None:
    """In this process too, though it has read before that there is nothing."""
    q = torch.zeros(1, 4, 40, 16)
    assert part("launch.tuned").forward(q, 40) is None
    machine.tune("forward")
    assert part("launch.tuned").forward(q, 40) == FAST


def test_the_table_stays_unless_another_is_faster_by_more_than_noise(machine: Machine) -> None:
    machine.seconds = {FAST: 1.99}
    assert machine.tune("dq")[0].config == TABLE == stored("dq")
    machine.seconds = {FAST: 1.9}
    assert machine.tune("dq")[0].config == FAST == stored("dq")


def test_a_lucky_first_time_does_not_win(machine: Machine) -> None:
    """The best are timed again: but it is the least of an own times that counts, as noise only adds."""
    times = {TABLE: [2.0, 2.0, 1.2], FAST: [1.5, 1.5, 1.5], SLOW: [2.0, 2.0, 2.0]}
    machine.clock = lambda call: times[next(iter(part("launch.tuned").tried.values()))].pop(0)  # type: ignore[method-assign]
    assert machine.tune("dq")[0].config == TABLE
    assert not any(times.values())


def test_launches_that_are_the_same_are_tried_once(machine: Machine) -> None:
    """Tiles are cut to a block where rows are not free, and in dK and dV the keys."""

    def tried(text: str, direction: str, *tiles: tuple[int, int]) -> set[tuple[int, int]]:
        own = Machine(text)
        make = part("launch.configs", text).Config
        own.tune(direction, candidates=tuple(make(rows, keys, 4, 2) for rows, keys in tiles))
        return {(c.rows, c.keys) for c in own.tried()}

    assert not part("pattern", "dilated").ROWS_PER_TILE_FREE  # and the heads of a KV head are of two classes
    assert tried("dilated", "forward", (128, 32), (32, 32), (16, 32), (32, 64)) == {(64, 64), (128, 32)}
    assert tried("dilated", "dkdv", (64, 128), (64, 16), (64, 32)) == {(64, 64)}
    assert tried("tokens", "dkdv", (64, 128), (64, 16), (64, 32)) == {(64, n) for n in (16, 32, 64, 128)}


def test_layers_count_as_often_as_there_are(machine: Machine) -> None:
    text = PATTERNS["two_layers"].replace("layers: 2\ndense_layers: 1", "layers: 5\ndense_layers: 1")
    assert part("tuning.trials", text).layer_kinds() == [(0, 4), (1, 1)]
    [result] = Machine(text).tune("forward")
    assert (result.seconds, result.table_seconds) == (5.0, 10.0)


def test_rare_layers_count_for_nothing_unless_they_launch_other_kernels(machine: Machine) -> None:
    """Ten layers, each with its own window; then two of them without a stride, which launch the same kernels."""
    text = PATTERNS["two_layers"].replace("layers: 2\ndense_layers: 1", "layers: 10")
    every = text.replace("local: 1, stride: 3, offset: g", "local: l + 1, stride: 40, offset: h")
    assert part("tuning.trials", every).layer_kinds() == [(0, 1), (1, 1), (2, 1), (3, 1)]
    other = (
        "\nlayouts: [{layers: 7, shards: [{heads: all, local: 3}]}, {layers: 9, shards: [{heads: all, dense: true}]}]"
    )
    assert part("tuning.trials", every + other).layer_kinds() == [(0, 1), (1, 1), (2, 1), (3, 1), (7, 0)]
    [result] = Machine(every + other).tune("dkdv")
    assert result.seconds == 4.0


def test_decoding_with_many_heads_in_a_tile_is_forward(machine: Machine) -> None:
    text = "pattern: 1\nname: small\nheads: 32\nkv_heads: 1\nhead_dim: 16\nblock: 16\nshards: [{heads: all, local: 2}]"
    assert Machine(text).tune("decode") == []
    assert [r.direction for r in Machine(text.replace("heads: 32", "heads: 16")).tune("decode")] == ["decode"]


@pytest.mark.parametrize("dim", [16, 64, 128, 256])
@pytest.mark.parametrize("item", [2, 4])
@pytest.mark.parametrize("known", ["sm_80", "sm_86", "sm_90", "sm_100", "gfx942"])
def test_the_candidates(known: str, item: int, dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning = part("tuning.main")
    monkeypatch.setattr(tuning, "HEAD_DIM", dim)
    for direction in part("launch.tuned").DIRECTIONS:
        found = list(tuning.space(direction, known, item))
        assert 3 <= len(found) <= 54, direction
        for c in found:
            assert min(c.rows, c.keys) >= 16 and c.warps in (2, 4, 8) and 1 <= c.stages <= 4
            if direction == "decode":
                assert c.rows == 16
            if known.startswith("gfx"):
                assert c.stages <= 2


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    tuning, said = part("tuning.main"), []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for cuda in (None, "13.0"):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        with pytest.raises(tuning.TuningError, match="tuning needs a GPU, and torch") as raised:
            tuning.find_device()
        said.append((str(raised.value), raised.value.help))
    assert "is built without CUDA" in said[0][0] and "install a build" in said[0][1]
    assert "sees none" in said[1][0] and "nvidia-smi" in said[1][1] and "small.tuning" in said[1][1]
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(tuning.TuningError, match="would be interpreted"):
        tuning.find_device()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(tuning.TuningError, match="needs triton"):
        tuning.find_device()


def test_the_clock_takes_the_median_and_empties_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """On events that say what they are told to, in milliseconds."""
    tuning, done = part("tuning.main"), []
    told = [9.0, 3.0, 700.0, 1.0, 5.0]

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            done.append("event")

        def synchronize(self) -> None:
            done.append("wait")

        def elapsed_time(self, stop: object) -> float:
            return told.pop(0)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: done.append("head start"))
    monkeypatch.setattr(tuning, "FLUSHED", 100)
    clock = tuning.GpuClock(CPU, budget=0.0)
    clock.flush.fill_(1)

    def call() -> None:
        done.append("cold" if not clock.flush.any() else "warm")
        clock.flush.fill_(1)

    assert clock(call) == 0.005
    assert told == [] and done == ["head start", "event", "cold", "event", "wait"] * 5


def test_alone_it_prints_results_and_tells_how_far_it_is(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m small.tuning`."""
    tuning = part("tuning.main")
    monkeypatch.setattr(tuning, "find_device", lambda *_: CPU)
    monkeypatch.setattr(tuning, "GpuClock", lambda device: machine.clock)
    monkeypatch.setattr(tuning, "space", lambda *_: [FAST])
    arguments = ["--dtype", "fp32", "--length", "45", "--only", "dq", "decode"]
    assert tuning.main(arguments) == 0
    printed = capsys.readouterr()
    assert [line.partition(":")[0] for line in printed.out.splitlines()[::2]] == ["dq", "decode"]
    assert "dq 2/6: 16 rows, 32 keys, 4 warps, 2 stages: 1000 ms\n" in printed.err
    failing(machine, monkeypatch, {FAST: KeyboardInterrupt()})
    assert tuning.main(["--only", "forward", *arguments[:4]]) == 130
    assert "interrupted" in capsys.readouterr().err
    monkeypatch.setattr(tuning, "find_device", refuse(tuning))
    assert tuning.main(arguments) == 2 and capsys.readouterr().err == "no GPU\n  help: find one\n"


def refuse(tuning: ModuleType) -> Callable[[str], None]:
    def find(whole: str) -> None:
        raise tuning.TuningError("no GPU", "find one")

    return find


def test_the_compiled_pattern_is_not_changed_by_tuning(machine: Machine) -> None:
    """What lies in the package's folder is what was compiled."""
    folder = Path(str(compiled("strided")[1].__file__)).parent
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    machine.tune("forward")
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}
