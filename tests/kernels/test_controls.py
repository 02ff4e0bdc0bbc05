"""Negative controls: packages with one number changed, which the comparisons of this folder must refuse."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.kernels.held import Held, check_backward, check_forward, held, tensors

pytestmark = pytest.mark.interpret


@pytest.fixture
def forgetful() -> Iterator[list[Held]]:
    """Packages whose arrays are made anew, and made anew again afterwards."""
    packages: list[Held] = []
    yield packages
    for of in packages:
        forget(of)


def forget(of: Held) -> None:
    """All that the modules keep is made anew: some of it holds what other functions gave."""
    for module in ("launch.arrays", "launch.items"):
        for value in vars(of.part(module)).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def test_a_class_integer(forgetful: list[Held], monkeypatch: pytest.MonkeyPatch) -> None:
    """Head 1 on the offset of head 2, in the forward kernel, and then in dK and dV alone."""
    of = held("strided")
    forgetful.append(of)
    inputs = tensors(of.pattern, 20, 75)
    check_forward(of, inputs)
    (ints, *_), strides = of.part("kernels.index_map").CLASS_INTS, of.part("launch.items").STRIDES
    ((first, (every, offset, *rest)),) = strides
    spoiled = (
        ("kernels.index_map", "CLASS_INTS", (ints, (2,)), check_forward),
        ("launch.items", "STRIDES", ((first, (every, offset + 1, *rest)),), check_backward),
    )
    for module, name, wrong, check in spoiled:
        with monkeypatch.context() as changed:
            changed.setattr(of.part(module), name, wrong)
            forget(of)
            with pytest.raises(AssertionError):
                check(of, inputs)
    forget(of)
    check_forward(of, inputs)


@pytest.mark.parametrize("inverse", [False, True])
def test_a_table_entry(inverse: bool, forgetful: list[Held], monkeypatch: pytest.MonkeyPatch) -> None:
    """The last column of a row, and the last row of a column, replaced by a neighbour."""
    of = held("drawn")
    forgetful.append(of)
    inputs = tensors(of.pattern, 60)
    name, check = ("column_table", check_backward) if inverse else ("row_table", check_forward)
    build = getattr(of.part("launch.arrays"), name)

    def wrong(*args: object) -> tuple[torch.Tensor, ...]:
        pointers, whole, entries = (x.clone() for x in build(*args))
        last = int(pointers[1 if inverse else 4]) - 1  # row 3 is the last of 60 tokens; column 0 is read by most rows
        rows = int(pointers[0])
        entries[rows if inverse else last] += 1 if inverse else -1
        return pointers, whole, entries

    check(of, inputs)
    monkeypatch.setattr(of.part("launch.arrays"), name, wrong)
    forget(of)
    with pytest.raises(AssertionError):
        check(of, inputs)


def test_one_output_that_was_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    of = held("strided")
    forward = of.part("launch.forward").forward

    def forgets(*args: object, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse = forward(*args, **options)
        out[0, 1, 7, 3] = float("nan")
        return out, lse

    monkeypatch.setattr(of.part("launch.forward"), "forward", forgets)
    with pytest.raises(AssertionError):
        check_forward(of, tensors(of.pattern, 20))


@pytest.mark.parametrize("what", ["q_start", "kv_start"])
def test_one_token_off(what: str) -> None:
    """A window that is exact to the token moves with the positions of queries and keys."""
    of = held("tokens")
    q, k, v = tensors(of.pattern, 20, 60)
    wrong = {"q_start": 41, "kv_start": 0} if what == "q_start" else {"q_start": 40, "kv_start": 16}
    with pytest.raises(AssertionError):
        check_forward(Held(of.pattern, Moved(of, wrong)), (q, k, v))  # type: ignore[arg-type]


class Moved:
    """A package whose `attention` is called with other positions."""

    def __init__(self, of: Held, place: dict[str, int]) -> None:
        self.of, self.place = of, place

    def attention(self, *tensors: torch.Tensor, **options: object) -> object:
        return self.of.package.attention(*tensors, **options, **self.place)
