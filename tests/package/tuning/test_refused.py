"""Configurations that compute wrongly, fail or take too long do not win, and the search says what it skipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.package.launch.tuned import config, part
from tests.package.tuning.machine import FAST, SLOW, TABLE, Machine, failing, stored

pytest.importorskip("triton")


def wrong(machine: Machine, monkeypatch: pytest.MonkeyPatch, name: str, at: Callable[..., bool], bad: Any) -> None:
    """What a function of the package gives becomes wrong by 5 percent while `bad` is tried, where `at` says so."""
    trials = part("tuning.trials", machine.text)
    true = getattr(trials, name)

    def changed(q: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        out = true(q, *rest, **options)
        return out * 1.05 if bad in part("launch.tuned", machine.text).tried.values() and at(q) else out

    monkeypatch.setattr(trials, name, changed)


ALWAYS = lambda q: True  # noqa: E731


@pytest.mark.parametrize(
    ("direction", "name", "at"),
    [
        ("forward", "attention", ALWAYS),
        ("forward", "attention", lambda q: q.shape[2] == 37),  # at the short length only
        ("forward", "attention", lambda q: q.shape[2] == 45),  # at the long one only
        ("forward", "attention_varlen", ALWAYS),
        ("forward", "attention_paged", ALWAYS),
        ("decode", "decode", ALWAYS),
    ],
)
def test_who_computes_wrongly_does_not_win(
    direction: str, name: str, at: Callable[..., bool], machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine.tune(direction)[0].config == FAST  # the control
    machine.seconds[SLOW] = 1.5
    wrong(machine, monkeypatch, name, at, FAST)
    [result] = machine.tune(direction)
    assert (result.config, result.skipped) == (SLOW, {"compute wrongly": 1}) and stored(direction) == SLOW
    assert f"{direction}: 32 rows, 16 keys" in str(result) and str(result).endswith("; 2 measured, 1 compute wrongly")


@pytest.mark.parametrize("direction", ["dq", "dkdv"])
@pytest.mark.parametrize("nth", [0, 1, 2])
def test_wrong_gradients_do_not_win(
    direction: str, nth: int, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = torch.autograd.grad

    def changed(*args: Any, **options: Any) -> Any:
        grads = list(true(*args, **options))
        if FAST in part("launch.tuned").tried.values():
            grads[nth] = grads[nth] + float("nan")
        return tuple(grads)

    monkeypatch.setattr(torch.autograd, "grad", changed)
    [result] = machine.tune(direction)
    assert (result.config, result.skipped) == (TABLE, {"compute wrongly": 1})


def test_what_does_not_fit_or_compile_is_skipped_and_counted(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime.errors import OutOfResources

    fourth = config(64, 16, 4, 2)
    errors = {FAST: OutOfResources(300000, 232448, "shared memory"), SLOW: RuntimeError("at 3:7\nPassManager failed")}
    failing(machine, monkeypatch, errors)
    machine.seconds = {fourth: 1.0}
    [result] = machine.tune("forward", candidates=(FAST, SLOW, fourth))
    assert result.config == fourth and result.measured == 2
    assert result.skipped == {"take too much shared memory": 1, "fail with RuntimeError: PassManager failed": 1}
    assert str(machine.steps[1]).endswith("4 warps, 2 stages: take too much shared memory")
    assert not part("launch.tuned").tried


def test_where_the_table_does_not_work_another_is_found(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime.errors import OutOfResources

    failing(machine, monkeypatch, {TABLE: OutOfResources(300000, 101376, "shared memory")})
    [result] = machine.tune("forward")
    assert (result.config, result.table, result.table_seconds) == (FAST, TABLE, None)
    assert "which does not work here" in str(result)


def test_where_nothing_works_nothing_is_stored(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(machine, monkeypatch, dict.fromkeys((TABLE, FAST, SLOW), RuntimeError("no C compiler")))
    with pytest.raises(
        part("tuning.search").TuningError, match="no configuration works: 3 fail with RuntimeError: no C comp"
    ):
        machine.tune("forward")
    assert stored() is None


def test_too_long(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(machine, monkeypatch, {FAST: torch.OutOfMemoryError("tried to allocate")})
    with pytest.raises(part("tuning.search").TuningError, match="45 tokens in a batch of 1 find no room") as raised:
        machine.tune("forward")
    assert "--length" in raised.value.help


def test_an_interruption_keeps_what_was_measured_whole(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(machine, monkeypatch, {SLOW: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        machine.tune("decode", "forward", "dq")
    assert stored("decode") == FAST and stored("forward") is None and stored("dq") is None
    assert not part("launch.tuned").tried
