"""The backward kernels on packed sequences, in Triton's interpreter, against fp64 autograd."""

from __future__ import annotations

import pytest
import torch

from patterncc import reference
from tests.kernels.held import (
    HEAD,
    TOLERANCE,
    gradients,
    held,
    off,
    placed,
    quick,
    tensors,
    weights,
)


@pytest.mark.parametrize("name", quick(["strided", "tokens", "mixed", "both_ways"], "strided", "mixed"))
def test_packed_sequences(name: str) -> None:
    """Lengths of 0 and 1 among them, queries fewer and more than keys, and NaN around."""
    of = held(name)
    lengths = [(0, 0), (40, 40), (1, 1), (3, 70), (20, 9), (0, 5), (5, 0)]
    packed = [tensors(of.pattern, a, b) for a, b in lengths]
    inputs = [placed(torch.cat([x[n] for x in packed], 2))[0].transpose(0, 1) for n in range(3)]
    starts = [torch.tensor([0, *(pair[n] for pair in lengths)]).cumsum(0).int() for n in range(2)]
    dout, dlse = weights(inputs[0], (of.pattern.heads, len(inputs[0])))

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return of.package.attention_varlen(q, k, v, *starts, 40, 70, return_lse=True)

    def exactly(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        split = [x.split([pair[bool(n)] for pair in lengths]) for n, x in enumerate((q, k, v))]
        parts = [
            reference.attention(of.pattern, *(x.transpose(0, 1)[None] for x in each))
            for each in zip(*split, strict=True)
            if len(each[0]) and len(each[1])
        ]
        gone = [x for x, (_, keys) in zip(split[0], lengths, strict=True) if len(x) and not keys]
        outs = [out[0].transpose(0, 1) for out, _ in parts] + [x * 0 for x in gone]
        lses = [lse[0] for _, lse in parts] + [x[..., 0].T * 0 - float("inf") for x in gone]
        return torch.cat(outs), torch.cat(lses, 1)

    with torch.no_grad():
        (out, lse), (true, true_lse) = attend(*inputs), exactly(*inputs)
    assert off(out, true) <= TOLERANCE[torch.float32]
    assert torch.equal(lse == float("-inf"), true_lse == float("-inf"))
    found = gradients(attend, inputs, dout, dlse)
    dlse = dlse.masked_fill(true_lse == float("-inf"), 0.0)
    true_grads = gradients(exactly, [x.double() for x in inputs], dout, dlse)
    errors = [off(x, y) for x, y in zip(found, true_grads, strict=True)]
    assert max(errors) <= TOLERANCE[torch.float32], errors


@pytest.mark.parametrize("form", ["sum", "transposed"])
@pytest.mark.parametrize("is_packed", [False, True])
def test_any_strides_of_the_gradient_of_the_lse(form: str, is_packed: bool) -> None:
    """That of a sum is one number for all rows, strides of 0; that of what is transposed has its rows apart."""
    of = held("strided")
    inputs = tensors(of.pattern, 41)
    _, dlse = weights(inputs[0])
    weigh = {"sum": lambda lse: lse.sum(), "transposed": lambda lse: (lse.mT * dlse.mT.contiguous()).sum()}[form]
    starts = torch.tensor([0, 41], dtype=torch.int32)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if not is_packed:
            return of.package.attention(q, k, v, return_lse=True)[1]
        tokens = [x[0].transpose(0, 1) for x in (q, k, v)]
        return of.package.attention_varlen(*tokens, starts, starts, 41, 41, return_lse=True)[1][None]

    leaves = [x.detach().requires_grad_() for x in inputs]
    found = torch.autograd.grad(weigh(attend(*leaves)), leaves[:2])
    exact = [x.detach().double().requires_grad_() for x in inputs]
    true = torch.autograd.grad(weigh(reference.attention(of.pattern, *exact)[1]), exact[:2])
    assert max(off(x, y) for x, y in zip(found, true, strict=True)) <= TOLERANCE[torch.float32]


def test_packed_sequences_with_sinks() -> None:
    """Sinks weigh the output by its LSE, whose gradient then comes rows apart, though nobody asks for the LSE."""
    of = held(HEAD + "sinks: learned\nshards: [{heads: all, local: 2, stride: 4, offset: h}]")
    inputs = (*tensors(of.pattern, 41), torch.tensor([0.7, -1.3]))
    dout, _ = weights(inputs[0])
    starts = torch.tensor([0, 41], dtype=torch.int32)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sinks: torch.Tensor) -> torch.Tensor:
        tokens = [x[0].transpose(0, 1) for x in (q, k, v)]
        return of.package.attention_varlen(*tokens, starts, starts, 41, 41, sinks=sinks).transpose(0, 1)[None]

    leaves = [x.detach().requires_grad_() for x in inputs]
    found = torch.autograd.grad((attend(*leaves) * dout).sum(), leaves)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    out = reference.attention(of.pattern, *exact[:3], sinks=exact[3])[0]
    true = torch.autograd.grad((out * dout).sum(), exact)
    assert max(off(x, y) for x, y in zip(found, true, strict=True)) <= TOLERANCE[torch.float32]
