"""Sinks in Triton's interpreter: output, LSE and gradients against dense attention in fp64 with one more key a head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.kernels.held import TOLERANCE, Held, held, off, tensors
from tests.kernels.test_serving import paged

pytestmark = [pytest.mark.interpret, pytest.mark.usefixtures("poisoned")]
INF = float("inf")


def graded(attend: Any, inputs: Any) -> dict[str, Tensor]:
    """Output, LSE, and the gradients of all inputs when both weigh something."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    out, lse = attend(*leaves)
    torch.manual_seed(3)
    weights = torch.randn(out.shape, dtype=torch.float64), torch.randn(lse.shape, dtype=torch.float64)
    kept = lse.isfinite()
    torch.autograd.backward([out, lse[kept]], [weights[0].to(out.dtype), weights[1].to(lse.dtype)[kept]])
    found = [out.detach(), lse.detach().masked_fill(~kept, 0.0), *(x.grad for x in leaves)]
    return dict(zip(("out", "lse", "dq", "dk", "dv", "dsinks"), found, strict=True))


def check(found: dict[str, Tensor], true: dict[str, Tensor], most: float) -> None:
    errors = {name: off(x, true[name]) for name, x in found.items()}
    assert {name: error for name, error in errors.items() if not error <= most} == {}


def exactly(of: Held, sinks: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
    def attend(q: Tensor, k: Tensor, v: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return reference.attention(of.pattern, q, k, v, sinks=s)

    return graded(attend, [x.double() for x in (*inputs, sinks)])


@pytest.mark.parametrize("name", ["starved", "values"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_attention_and_its_gradients(name: str, dtype: torch.dtype) -> None:
    """Rows without keys among them, of which the sink is all; and values wider than keys."""
    of = held(name)
    inputs = [x.to(dtype) for x in tensors(of.pattern, 37, 75, batch=2)]
    sinks = torch.tensor([0.7, -1.3])
    found = graded(lambda q, k, v, s: of.package.attention(q, k, v, sinks=s, return_lse=True), (*inputs, sinks))
    # the output is rounded twice, and the gradients' delta is of the rounded one
    check(found, exactly(of, sinks, *inputs), 3 * TOLERANCE[dtype])
    with pytest.raises(AssertionError):  # negative control
        check(found, exactly(of, sinks + 0.05, *inputs), 3 * TOLERANCE[dtype])


def test_sinks_that_are_nothing_change_no_bit() -> None:
    of = held("starved")
    inputs = tensors(of.pattern, 37, 75)
    none = torch.full((2,), -INF)
    found = of.package.attention(*inputs, sinks=none, return_lse=True)
    true = of.package.attention(*inputs, return_lse=True)
    assert torch.equal(found[0], true[0]) and torch.equal(found[1], true[1])
    of_none = graded(lambda q, k, v, s: of.package.attention(q, k, v, sinks=s, return_lse=True), (*inputs, none))
    assert (of_none["dsinks"] == 0).all() and of_none["dq"].isfinite().all()


@pytest.mark.parametrize("size", [-200.0, 0.0, 200.0])
def test_sinks_of_any_size(size: float) -> None:
    """Where exp of a sink is 0 and infinite in float32."""
    of = held("starved")
    inputs = tensors(of.pattern, 20, 33)
    sinks = torch.tensor([size, size + 1])
    out, lse = of.package.attention(*inputs, sinks=sinks, return_lse=True)
    true, true_lse = reference.attention(of.pattern, *(x.double() for x in inputs), sinks=sinks.double())
    assert (out - true).abs().max() <= 2e-6 and (lse - true_lse).abs().max() <= 200 * 2.0**-23


def test_packed_sequences_and_rows_of_none() -> None:
    of = held("starved")
    starts = torch.tensor([2, 23, 23, 55], dtype=torch.int32)
    q, k, v = (x[0].transpose(0, 1) for x in tensors(of.pattern, 60))
    sinks = torch.tensor([0.7, -1.3])

    def attend(q: Tensor, k: Tensor, v: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return of.package.attention_varlen(q, k, v, starts, starts, 32, 32, sinks=s, return_lse=True)

    def exact(q: Tensor, k: Tensor, v: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        outs, lses = [q[:2] * 0], [q[:2, :, 0].T * 0 - INF]
        for first, stop in ((2, 23), (23, 55)):
            part = (x[first:stop].transpose(0, 1)[None] for x in (q, k, v))
            out, lse = reference.attention(of.pattern, *part, sinks=s)
            outs.append(out[0].transpose(0, 1))
            lses.append(lse[0])
        return torch.cat([*outs, q[55:] * 0]), torch.cat([*lses, q[55:, :, 0].T * 0 - INF], 1)

    given = q, k, v, sinks
    check(graded(attend, given), graded(exact, [x.double() for x in given]), 3 * TOLERANCE[torch.float32])
    _, lse = attend(*given)
    assert (lse[:, :2] == -INF).all() and (lse[:, 55:] == -INF).all() and lse[:, 2:55].isfinite().all()


def test_rows_of_no_sequence_may_be_anything() -> None:
    """Whatever the gradients of output and LSE are there, and whatever the sinks are."""
    pattern, package = held("starved")
    starts = torch.tensor([2, 39, 39, 90], dtype=torch.int32)
    leaves = [x[0].transpose(0, 1).contiguous().requires_grad_() for x in tensors(pattern, 95)]
    sinks = torch.tensor([0.7, -1.3], requires_grad=True)

    def attend(sinks: Tensor) -> tuple[Tensor, Tensor]:
        return package.attention_varlen(*leaves, starts, starts, 51, 51, sinks=sinks, return_lse=True)

    out, lse = results = attend(sinks)
    clean = [torch.randn(x.shape) for x in results]
    spoilt = [x.clone() for x in clean]
    for own in (slice(0, 2), slice(90, 95)):
        spoilt[0][own], spoilt[1][:, own] = float("nan"), float("nan")
    graded = [torch.autograd.grad(results, (*leaves, sinks), x, retain_graph=True) for x in (clean, spoilt)]
    assert all(torch.equal(x, y) and x.isfinite().all() for x, y in zip(*graded, strict=True))
    out, lse = attend(torch.full_like(sinks, float("nan")))
    assert (out[:2] == 0).all() and (out[90:] == 0).all() and lse[:, [0, 1, 90, 94]].isneginf().all()
    assert lse[:, 2:90].isnan().all()  # negative control


def test_pages_and_decoding() -> None:
    of = held("strided")
    batch, sinks = paged(of, [(3, 40), (1, 21)]), torch.tensor([0.7, -1.3])
    place = batch.k_cache, batch.v_cache, batch.block_table, batch.seq_lens
    rows = torch.cat([batch.q, batch.q[:1]])  # the last row is of no request
    out, lse = of.package.attention_paged(rows, *place, batch.starts, sinks=sinks, return_lse=True)
    first = 0
    for q, k, v in batch.requests:
        true, true_lse = reference.attention(of.pattern, *(x.double() for x in (q, k, v)), sinks=sinks.double())
        own = slice(first, first + q.shape[2])
        assert off(out[own].transpose(0, 1)[None], true) <= 3e-6 and off(lse[:, own][None], true_lse) <= 3e-6
        first = own.stop
    assert (out[4] == 0).all() and (lse[:, 4] == -INF).all()
    last = torch.stack([q[0, :, -1] for q, _, _ in batch.requests])[:, None]
    stepped, sums = of.package.decode(last, *place, sinks=sinks, return_lse=True)
    assert torch.equal(stepped[:, 0], out[[2, 3]]) or off(stepped[:, 0], out[[2, 3]]) <= 3e-6
    assert off(sums[:, :, 0], lse[:, [2, 3]].T) <= 3e-6
