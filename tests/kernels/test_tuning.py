"""Tuning end to end in Triton's interpreter: kernels of every candidate against fp64, the fastest stored, then taken by
attention, which is right with it. The clock says who is fastest; that needs no hardware."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kernels.held import HEAD, Held, check_backward, check_forward, held, tensors

pytestmark = pytest.mark.interpret
NAMES = ["strided", pytest.param("tokens", marks=pytest.mark.slow), pytest.param("drawn", marks=pytest.mark.slow)]


class Tuner:
    """Tunes a package; the clock lets one candidate win, and watches the launches of whatever is called."""

    def __init__(self, of: Held, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of, self.tuned = of, of.part("launch.tuned")
        self.tuned._read.clear()
        make = of.part("launch.configs").Config
        self.best, self.other = make(16, 32, 4, 2), make(32, 16, 4, 2)
        self.tiles: list[tuple[str, int]] = []
        for module, kernel in (("forward", "fwd"), ("backward", "bwd_dq"), ("backward", "bwd_dkdv")):
            self.watch(monkeypatch, f"launch.{module}", f"attn_{kernel}_held")

    def watch(self, monkeypatch: pytest.MonkeyPatch, module: str, kernel: str) -> None:
        launches, seen = getattr(self.of.part(module), kernel), self.tiles

        class Watched:
            def __getitem__(self, grid: object) -> Callable[..., None]:
                def launch(*args: Any, **constants: Any) -> None:
                    seen.append((kernel, constants["BLOCK_N"]))
                    launches[grid](*args, **constants)

                return launch

        monkeypatch.setattr(self.of.part(module), kernel, Watched())

    def clock(self, call: Callable[[], object]) -> float:
        [tried] = self.tuned.tried.values()
        return 1.0 if tried == self.best else 2.0

    def run(self, *directions: str) -> list[Any]:
        options = {"dtype": torch.float32, "length": 35, "short": 37, "device": torch.device("cpu")}
        candidates = lambda *_: [self.best]  # noqa: E731
        return list(self.of.part("tuning.main").tune(directions, clock=self.clock, candidates=candidates, **options))


@pytest.fixture
def tuner(fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Tuner]]:
    made: list[Tuner] = []

    def make(name: str) -> Tuner:
        made.append(Tuner(held(name), monkeypatch))
        return made[-1]

    yield make
    for each in made:
        each.tuned._read.clear()


@pytest.mark.parametrize("name", NAMES)
def test_the_forward_kernel(name: str, tuner: Callable[[str], Tuner]) -> None:
    tuned = tuner(name)
    [result] = tuned.run("forward")
    assert (result.config, result.measured, result.skipped) == (tuned.best, 2, {})
    tuned.tiles.clear()
    check_forward(tuned.of, tensors(tuned.of.pattern, 37, 69))
    assert set(tuned.tiles) == {("attn_fwd_held", 32)}


@pytest.mark.parametrize("name", NAMES)
def test_the_backward_kernels(name: str, tuner: Callable[[str], Tuner]) -> None:
    tuned = tuner(name)
    assert [result.config for result in tuned.run("dq", "dkdv")] == [tuned.best] * 2
    tuned.tiles.clear()
    check_backward(tuned.of, tensors(tuned.of.pattern, 37, 53))
    keys = dict(tuned.tiles)
    own = 32 if tuned.of.part("pattern").ROWS_PER_TILE_FREE else 16  # keys of a tile lie in one block
    assert keys == {"attn_fwd_held": 64, "attn_bwd_dq_held": 32, "attn_bwd_dkdv_held": own}


def test_decoding(tuner: Callable[[str], Tuner]) -> None:
    tuned = tuner("strided")
    [result] = tuned.run("decode")
    assert (result.config, result.measured) == (tuned.best, 2)
    tuned.tiles.clear()
    check_forward(tuned.of, tensors(tuned.of.pattern, 1, 69))  # a row: what `decode` launches
    check_forward(tuned.of, tensors(tuned.of.pattern, 33, 33))
    assert tuned.tiles == [("attn_fwd_held", 32), ("attn_fwd_held", 64)]


def test_a_kernel_that_computes_wrongly_does_not_win(
    tuner: Callable[[str], Tuner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tile's last key is taken from its neighbour, but in the tiles of the fastest candidate alone."""
    tuned = tuner("strided")
    launch = tuned.of.part("launch.forward")
    attn_fwd = launch.attn_fwd_held

    class Wrong:
        def __getitem__(self, grid: object) -> Callable[..., None]:
            def run(q: torch.Tensor, k: torch.Tensor, *args: Any, **constants: Any) -> None:
                if constants["BLOCK_N"] == 32:
                    k = k.clone()
                    k[..., 31::32, :] = k[..., 30 : k.shape[-2] - 1 : 32, :]
                attn_fwd[grid](q, k, *args, **constants)

            return run

    monkeypatch.setattr(launch, "attn_fwd_held", Wrong())
    [result] = tuned.run("forward")
    assert result.config == result.table != tuned.best
    assert (result.measured, result.skipped) == (1, {"compute wrongly": 1})
    q = torch.zeros(1, 2, 40, 16)
    assert tuned.tuned.forward(q, 40) == result.table


@pytest.mark.slow
def test_layers_that_differ(tuner: Callable[[str], Tuner]) -> None:
    """A kind of layer each is checked and timed."""
    text = HEAD + "layers: 3\ndense_layers: 0\nshards: [{heads: all, local: 2, stride: 4, offset: h}]"
    tuned = tuner(text)
    for result in tuned.run(*tuned.tuned.DIRECTIONS):
        assert (result.config, result.seconds, result.table_seconds) == (tuned.best, 3.0, 6.0)
    for layer in range(3):
        check_backward(tuned.of, tensors(tuned.of.pattern, 37, 53), layer=layer)
