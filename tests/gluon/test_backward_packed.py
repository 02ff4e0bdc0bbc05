"""The Hopper backward on packed sequences: what lies before, between and behind them is NaN."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.gluon import hopper
from tests.gluon.test_backward import ERROR, made, sums_of
from tests.gluon.test_packed import LENGTHS, requests_of
from tests.kernels.held import gradients, off, quick, weights

NAMES = "strided", "wide", "tokens", "mixed", "bands_strided", "both_ways_tokens", "several"
VARIANTS = [(name, block) for name in NAMES for block in (16, 64, 128)]
CHOSEN = [("strided", 64), ("bands_strided", 16), ("several", 128)]
BEFORE, BEHIND = 5, 70  # rows of no sequence


def packed(parts: list[Tensor]) -> Tensor:
    """[1, heads, rows, ...] of all sequences, and NaN where no sequence is."""
    joined = torch.cat(parts, 2)
    heads = joined.shape[1]
    ends = [joined.new_full((1, heads, n, *joined.shape[3:]), float("nan")) for n in (BEFORE, BEHIND)]
    return torch.cat([ends[0], joined, ends[1]], 2)


def starts(lengths: list[int]) -> Tensor:
    return torch.tensor([BEFORE + sum(lengths[:n]) for n in range(len(lengths) + 1)], dtype=torch.int32)


def spoilt(x: Tensor) -> Tensor:
    return torch.full_like(x, float("nan"))


@pytest.mark.parametrize("variant", quick(VARIANTS, *CHOSEN), ids=lambda v: f"{v[0]}-{v[1]}")
def test_packed(variant: tuple[str, int]) -> None:
    check_packed(*made(*variant))


def check_packed(of: Any, launcher: Any, kernels: tuple[Any, Any], lengths: Any = LENGTHS) -> None:
    """Sequences of these lengths, each against the reference."""
    for seed, (q_lens, kv_lens) in enumerate(lengths):
        each = requests_of(of.pattern, q_lens, kv_lens)
        given, true = [], []
        for n, inputs in enumerate(each):

            def attend(*inputs: Tensor) -> Any:
                return reference.attention(of.pattern, *inputs)

            dout, dlse = weights(inputs[0], inputs[0].shape[:3])
            own = (*inputs, dout, *sums_of(*attend(*inputs), dout, dlse))
            is_spoilt = n == 1 and len(each) > 2  # its numbers are none: the others must not know
            given.append([spoilt(x) for x in own] if is_spoilt else own)
            true.append(None if is_spoilt else gradients(attend, [x.double() for x in inputs], dout, dlse))
        q, k, v, dout, log_sum, delta = (packed([x[n] for x in given]) for n in range(6))
        grads = [torch.full_like(x, float("nan")) for x in (q, k, v)]
        lists = {"q_starts": starts(q_lens), "kv_starts": starts(kv_lens)}
        totals = {"q_total": q.shape[2], "kv_total": k.shape[2]}
        requests = launcher.Requests(len(each), max(q_lens), max(kv_lens), **lists, **totals)
        inputs = q, k, v, dout
        count = hopper.backward(kernels, launcher, inputs, grads, (log_sum, delta), requests, seed=seed)
        assert count == 1 + len(launcher.work_of(q, requests, (0, 0, of.pattern.heads))[0].launches)
        for name, grad, bounds in zip(("dq", "dk", "dv"), grads, (starts(q_lens), *[starts(kv_lens)] * 2), strict=True):
            for n, wanted in enumerate(true):
                if wanted is not None:
                    found = grad[:, :, bounds[n] : bounds[n + 1]]
                    error = off(found, wanted[("dq", "dk", "dv").index(name)])
                    assert error < ERROR, (seed, n, name, error)
            assert (grad[:, :, : bounds[0]] == 0).all() and (grad[:, :, bounds[-1] :] == 0).all()
