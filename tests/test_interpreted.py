"""Triton's interpreter computes the same without what `tests/interpreted.py` leaves out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests import interpreted
from tests.kernels.held import PATTERNS, made, run, tensors, weights

tl = pytest.importorskip("triton.language")
from triton.runtime import interpreter  # noqa: E402  (where there is a Triton)

pytestmark = pytest.mark.interpret


@pytest.mark.parametrize("name", ["tokens", "mixed"])
def test_the_same_bits_in_fewer_steps(name: str, poisoned: None, monkeypatch: pytest.MonkeyPatch) -> None:
    of = made(PATTERNS[name])
    inputs = tensors(of.pattern, 37)
    through = weights(inputs[0], inputs[0].shape[:3])
    builder = interpreter.interpreter_builder
    slow = interpreter._patch_lang.__wrapped__, interpreter._get_np_dtype.__wrapped__, type(builder.options)()
    steps, found = ([0, 0], [0, 0], [0, 0]), []

    def counted(kind: int, step: Callable[..., object]) -> Callable[..., object]:
        def take(*given: object) -> object:
            steps[kind][len(found)] += 1
            return step(*given)

        return take

    search, find, options = counted(0, slow[0]), counted(1, slow[1]), slow[2]
    monkeypatch.setattr(builder, "create_icmpSLE", counted(2, builder.create_icmpSLE))
    same = interpreted.once(search), interpreted.known(find), interpreted.unasked(options)
    for patch, get, chosen in ((search, find, options), same):
        monkeypatch.setattr(interpreter, "_patch_lang", patch)
        monkeypatch.setattr(interpreter, "_get_np_dtype", get)
        monkeypatch.setattr(builder, "options", chosen)
        found.append(run(lambda q, k, v: of.package.attention(q, k, v, return_lse=True), inputs, through))
        assert tl.core.is_builtin(tl.load)  # each launch gives the functions back
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])
    assert all(few * 10 < many for many, few in steps), steps


def test_who_debugs_is_told_of_overflows() -> None:
    """The check goes where nobody sees what it finds, and only there."""
    options = type(interpreter.interpreter_builder.options)
    assert not options().debug and options().sanitize_overflow
    assert not interpreted.unasked(options()).sanitize_overflow
    assert interpreted.unasked(options(debug=True)).sanitize_overflow


def test_types_are_those_of_the_interpreter() -> None:
    find = interpreter._get_np_dtype
    for kind in (tl.int1, tl.float16, tl.int32, tl.int64, tl.pointer_type(tl.float16), tl.bfloat16):
        for shaped in (kind, tl.block_type(kind, [4]), tl.block_type(kind, [4, 2])):
            assert find(shaped) == find(shaped) == find.__wrapped__(shaped)
