"""Every row and key is looked at: a block too much or too few in one row, NaN, or a wrong gradient is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.gpu import cases, everywhere, witness
from benchmarks.gpu.cases import Case

DIM = 16
CASES = [cases.TOY, *cases.CASES.values()]


def small(case: Case) -> tuple[Case, int]:
    """The case with a short head, and a length beyond its window that ends within a block."""
    return replace(case, head_dim=DIM), min((case.local + case.stride + 2) * case.block, 900) + 3


def masked(case: Case, tokens: int) -> Tensor:
    t, heads = torch.arange(tokens), torch.arange(case.heads)[:, None, None]
    return case.keeps(heads, t[:, None], t[None])


def attention(mask: Tensor, share: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (x.repeat_interleave(share, 1) for x in (k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    return attend


def inputs(case: Case, tokens: int, batch: int = 1) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = case.heads, case.kv_heads, case.kv_heads
    return [torch.randn(batch, n, tokens, case.head_dim).requires_grad_() for n in shapes]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_running_sums_state_the_pattern(case: Case) -> None:
    case, tokens = small(case)
    mask = masked(case, tokens)
    values = torch.randn(tokens, 3, dtype=torch.float64)
    for head in (0, 1, case.heads - 1):
        kept = mask[head].double()
        assert torch.equal(everywhere.counts(case, head, values)[:, 0], kept.sum(1))
        assert torch.allclose(everywhere.means(case, head, values), kept @ values / kept.sum(1, keepdim=True))
        assert torch.allclose(everywhere.kept_by(case, head, values), kept.T @ values)


@pytest.mark.parametrize("case", [cases.TOY, cases.CASES["mixed"]], ids=lambda case: case.name)
def test_one_block_more_or_less_is_seen(case: Case) -> None:
    case, tokens = small(case)
    right, share = masked(case, tokens), case.heads // case.kv_heads
    tensors = [x.detach() for x in inputs(case, tokens)]
    witness.check_everywhere(case, 2e-6, attention(right, share), *tensors)
    i, head = tokens // case.block - 1, 1
    rows = slice(i * case.block, (i + 1) * case.block)
    kept = next(j for j in range(i) if right[head, rows.start, j * case.block])
    missing = [j for j in range(i) if not right[head, rows.start, j * case.block]]
    for j in (kept, *missing[:1]):
        wrong = right.clone()
        wrong[head, rows, j * case.block : (j + 1) * case.block] ^= True
        with pytest.raises(witness.WrongError, match="result of all rows"):
            witness.check_everywhere(case, 1e-2, attention(wrong, share), *tensors)


def spoiled(right: Callable[[Tensor, Tensor, Tensor], Tensor], kind: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention that is right but for one row of one head, or for the gradient of one row or key."""

    class At(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            gradient = gradient.clone()
            gradient[0, 1, 20:36] *= 0.9
            return gradient

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = right(At.apply(q) if kind == "dq" else q, k, At.apply(v) if kind == "dv" else v)
        if kind == "nan":
            out = out.clone()
            out[0, 1, 30] = torch.nan
        return out

    return attend


@pytest.mark.parametrize("kind", ["nan", "dq", "dv"])
def test_a_row_that_nobody_chose_is_seen(kind: str) -> None:
    """In the first of two sequences, though the rows that are held against fp64 are of the last."""
    case, tokens = small(cases.TOY)
    right = attention(masked(case, tokens), case.heads // case.kv_heads)
    tensors = inputs(case, tokens, batch=2)
    few = torch.tensor([0, tokens - 1])
    assert witness.check_sequences(case, 2e-6, right, *tensors, rows=few) < 2e-6
    with pytest.raises(witness.WrongError, match="of all rows"):
        witness.check_sequences(case, 1e-2, spoiled(right, kind), *tensors, rows=few)
