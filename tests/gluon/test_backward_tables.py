"""dK and dV for Hopper of patterns that are tables, against the reference: emulated, with the launcher's arguments."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.gluon import hopper, test_tables
from tests.gluon.test_backward import ERROR, NAMES, sums_of
from tests.gluon.test_backward_packed import check_packed
from tests.gluon.test_forward import GROUPS, HEAD, dense
from tests.kernels.held import Held, gradients, held, off, placed, quick, tensors, weights

RULES = test_tables.RULES | {
    "grouped": GROUPS + "shards: [{heads: 0, local: 21 tokens, random: {blocks: 1, seed: 3}, sink: 5 tokens}, "
    "{heads: rest, local: 1, random: {blocks: 2, seed: h}}]",
    "chunks": HEAD + "shards: [{heads: 0, chunk: 2, stride: 5, offset: 1}, {heads: 1, chunk: 4, random: {blocks: 1}}]",
}
VARIANTS = [(name, block) for name in RULES for block in (16, 32, 64, 128)]
CHOSEN = [("grouped", 64), ("masked", 16), ("tokens", 64), ("both_ways", 32)]


@cache
def made(name: str, block: int) -> tuple[Held, Any, tuple[Any, Any]]:
    """A pattern's package, its launcher and its kernels on the emulated language."""
    of = held(RULES[name].replace("block: 64", f"block: {block}"))
    assert of.part("pattern").FORM == "table"
    launcher = of.part("launch.hopper_backward")
    return of, launcher, tuple(hopper.kernel_of(launcher, name=name) for name in NAMES)  # type: ignore[return-value]


def differentiate(
    launcher: Any, kernel: Any, inputs: Sequence[Tensor], sums: Any, starts: tuple[int, int], **more: Any
) -> tuple[Tensor, Tensor]:
    """dk and dv of the emulated kernel, from memory full of NaN; inputs: q, k, v, dout."""
    q, k = inputs[:2]
    grads = [placed(torch.full(x.shape, float("nan"))) for x in inputs[1:3]]
    requests = launcher.Requests(q.shape[0], q.shape[2], k.shape[2], *starts)
    heads, scale = (0, 0, q.shape[1]), launcher.HEAD_DIM**-0.5
    with hopper.launched((None, kernel), launcher, lambda x: all(x is not grad for grad in grads), **more) as found:
        launcher.fill_dkdv(*grads, *inputs, *sums, requests, heads, scale, hopper.add_parts)
    assert found == [kernel]
    return grads[0], grads[1]


def compare(launcher: Any, kernel: Any, inputs: Sequence[Tensor], attend: Any, starts: Any, **more: Any) -> None:
    """The emulated gradients against those of `attend` in fp64, through output and LSE."""
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])
    dout = placed(dout)
    wide = [x.double() for x in inputs]
    sums = sums_of(*attend(*wide), dout, dlse)
    found = differentiate(launcher, kernel, (*inputs, dout), sums, starts, **more)
    true = gradients(attend, wide, dout, dlse)[1:]
    errors = [off(x, y) for x, y in zip(found, true, strict=True)]
    assert max(errors) < ERROR, errors
    for x, y in zip(found, true, strict=True):
        assert (x[y.abs().sum(-1) == 0] == 0).all()  # keys that nobody keeps


@pytest.mark.parametrize("variant", quick(VARIANTS, *CHOSEN), ids=lambda v: f"{v[0]}-{v[1]}")
def test_tables(variant: tuple[str, int], short_items: Any) -> None:
    of, launcher, (_, kernel) = made(*variant)
    short_items(launcher)
    for batch, q_len, kv_len, seed in ((1, 500, 500, 0), (2, 129, 129, 1), (1, 70, 420, 2)):
        inputs = tensors(of.pattern, q_len, kv_len, batch=batch)

        def attend(*inputs: Tensor) -> Any:
            return reference.attention(of.pattern, *inputs)

        compare(launcher, kernel, inputs, attend, (kv_len - q_len, 0), seed=seed)


@pytest.mark.parametrize("name", ["drawn", "both_ways"])
def test_queries_and_keys_stand_anywhere(name: str, short_items: Any) -> None:
    """A part of the keys, from a block on; queries before, among and behind them."""
    of, launcher, (_, kernel) = made(name, 64)
    short_items(launcher)
    q, k, v = tensors(of.pattern, 700)
    for q_start, q_len, kv_start, kv_stop in ((300, 150, 128, 411), (0, 100, 192, 500), (601, 99, 64, 300)):
        mask = reference.dense_mask(of.pattern, 0, 700)[:, q_start : q_start + q_len, kv_start:kv_stop]
        own = q[:, :, q_start : q_start + q_len], k[:, :, kv_start:kv_stop], v[:, :, kv_start:kv_stop]

        def attend(*inputs: Tensor) -> Any:
            return dense(mask, *inputs)  # noqa: B023 (called at once)

        compare(launcher, kernel, own, attend, (q_start, kv_start), seed=q_start)


@pytest.mark.interpret
@pytest.mark.parametrize("counted", [(True, True), (True, False), (False, True)], ids=["both", "dq", "dkdv"])
def test_the_whole_pass(counted: tuple[bool, bool], short_items: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernels before and after it, which Triton's interpreter runs: also the plain one for dQ, or for dK and
    dV, where the table of that is too large."""
    of, launcher, kernels = made("grouped", 64)
    short_items(launcher)
    launch = of.part("launch.backward")
    monkeypatch.setattr(launcher, "takes", lambda *_given: True)
    monkeypatch.setattr(launcher.hopper, "MOST_COLUMNS", 999 if counted[0] else 1)
    monkeypatch.setattr(launcher.slot_lists, "MOST_NUMBERS", 1 << 31 if counted[1] else 1)
    inputs = tensors(of.pattern, 300)
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])

    def attend(*given: Tensor) -> Any:
        return reference.attention(of.pattern, *given)

    out, lse = (x.float() for x in attend(*inputs))
    options: dict[str, Any] = {"layer": 0, "scale": of.pattern.head_dim**-0.5, "head_offset": 0}
    with hopper.launched(kernels, launcher, lambda _sums: False) as found:
        grads = launch.backward(*inputs, out, lse, dout, dlse, **options, q_start=0, kv_start=0)
    assert found == [kernel for kernel, is_taken in zip(kernels, counted, strict=True) if is_taken]
    true = gradients(attend, [x.double() for x in inputs], dout, dlse)
    assert max(off(x, y) for x, y in zip(grads, true, strict=True)) < ERROR


@pytest.mark.parametrize("variant", quick(VARIANTS, ("drawn", 64), ("bands", 16)), ids=lambda v: f"{v[0]}-{v[1]}")
def test_packed(variant: tuple[str, int]) -> None:
    check_packed(*made(*variant))
