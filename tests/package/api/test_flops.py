"""torch.utils.flop_counter counts the token pairs that are kept: against the definition's mask."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from patterncc import reference
from tests.package.made import HEAD, compiled, tensors

TEXTS = {
    "tokens": HEAD.replace("small", "counted") + "shards: [{heads: all, local: 21 tokens, stride: 3, sink: 5 tokens}]",
    "dense": HEAD.replace("small", "counted") + "shards: [{heads: 0, dense: true}, {heads: rest, local: 1}]",
    "both_ways": "both_ways_tokens",
    "drawn": "drawn",
    "values": "values",
}


def ints(*x: int) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.int32)


@pytest.mark.parametrize(("queries", "keys"), [(90, 90), (5, 77), (40, 33), (1, 1), (7, 0)])
@pytest.mark.parametrize("text", TEXTS)
def test_attention(text: str, queries: int, keys: int) -> None:
    """Two products a pair forward, and five backward: the scores once more, and those of four gradients."""
    pattern, package = compiled(TEXTS[text])
    pairs = int(reference.dense_mask(pattern, 0, queries, keys).sum())
    q, k, v = (x.requires_grad_() for x in tensors(pattern, queries, keys, batch=2))
    with FlopCounterMode(display=False) as forward:
        out = package.attention(q, k, v)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    dim, v_dim = pattern.head_dim, pattern.v_head_dim
    assert forward.get_total_flops() == 2 * 2 * (dim + v_dim) * pairs
    assert backward.get_total_flops() == 2 * 2 * (3 * dim + 2 * v_dim) * pairs


def test_packed_and_paged() -> None:
    pattern, package = compiled(TEXTS["tokens"])
    lengths = [(20, 20), (0, 5), (3, 40)]
    pairs = sum(int(reference.dense_mask(pattern, 0, a, b).sum()) for a, b in lengths if a)
    q, k, v = (x[0].transpose(0, 1) for x in tensors(pattern, 30, 70))
    starts, most = (ints(0, 20, 20, 23), ints(0, 20, 25, 65)), (20, 40)
    caches = [x[:64].unflatten(0, (4, 16)) for x in (k, v)]
    leaf = q.clone().requires_grad_()
    with FlopCounterMode(display=False) as varlen:
        package.attention_varlen(leaf, k, v, *starts, *most).sum().backward()
    with FlopCounterMode(display=False) as paged:
        table = torch.tensor([[0, 1, 2], [1, 0, 3], [3, 2, 1]], dtype=torch.int32)
        package.attention_paged(q, *caches, table, ints(20, 5, 40), starts[0])
    assert varlen.get_total_flops() == (4 + 10) * pattern.head_dim * pairs
    assert paged.get_total_flops() == 4 * pattern.head_dim * pairs


def test_an_earlier_counter_and_an_import_without_one() -> None:
    """A counter that began before the package's first call counts it, too."""
    with FlopCounterMode(display=False) as counter:
        pattern, package = compiled(HEAD.replace("small", "counted_late") + "shards: [{heads: all, local: 2}]")
        package.attention(*tensors(pattern, 40))
    assert counter.get_total_flops() == 4 * 16 * int(reference.dense_mask(pattern, 0, 40).sum())
