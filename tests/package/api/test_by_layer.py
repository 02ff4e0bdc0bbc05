"""Layers that differ in heads and widths, in one package: each is served as by a package of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.package.api.layered import TEXT, both
from tests.package.made import compiled, exact, off, run, tensors, weights_like

LAYERS = range(4)


@pytest.mark.parametrize("lengths", [(83, 83), (19, 101)])
@pytest.mark.parametrize("layer", LAYERS)
def test_attention_is_the_definition(layer: int, lengths: tuple[int, int], poisoned: None) -> None:
    pattern, package = compiled(TEXT)
    inputs = tensors(pattern, *lengths, batch=2, layer=layer)
    weights = weights_like(inputs)
    found = run(lambda q, k, v: package.attention(q, k, v, layer=layer, return_lse=True), inputs, weights)
    true = exact(pattern, inputs, weights, layer=layer)
    for name, x in true.items():
        assert off(found[name], x) <= 2e-6, name  # some hundreds of sums and products, 6e-8 each


def test_a_wrong_layer_would_be_seen() -> None:
    """Negative control: layers 1 and 3 have equal sizes; were one served by another's rules, it would show."""
    text = TEXT.replace("layers: [1, 3], ", "layers: 1, ") + (
        "- {layers: 3, heads: 6, kv_heads: 3, shards: [{heads: all, local: 3}]}\n"
    )
    pattern, package = compiled(text)
    inputs = tensors(pattern, 83, layer=1)
    weights = weights_like(inputs)
    found = run(lambda q, k, v: package.attention(q, k, v, layer=3, return_lse=True), inputs, weights)
    assert off(found["out"], exact(pattern, inputs, weights, layer=1)["out"]) > 1e-2


def test_layer_0_unless_said() -> None:
    pattern, package = compiled(TEXT)
    q, k, v = tensors(pattern, 40)
    assert torch.equal(package.attention(q, k, v), package.attention(q, k, v, layer=0))
    assert torch.equal(package.dense_mask(40), reference.dense_mask(pattern, 0, 40))
    assert package.KVCache(1).layer == 0 and package.exchange_plan(40, 2).layer == 0


@pytest.mark.parametrize("layer", LAYERS)
def test_packed_paged_and_decoded_as_alone(layer: int, poisoned: None) -> None:
    whole, alone = both(layer)
    q, k, v = (x[0].transpose(0, 1).contiguous() for x in tensors(compiled(TEXT)[0], 53, layer=layer))
    starts = torch.tensor([0, 17, 17, 53], dtype=torch.int32)
    assert same(
        whole.attention_varlen(q, k, v, starts, starts, 36, 36, layer=layer, return_lse=True),
        alone.attention_varlen(q, k, v, starts, starts, 36, 36, return_lse=True),
    )
    pages = [torch.zeros(64, *x.shape[1:]).index_copy(0, torch.arange(53), x).view(4, 16, *x.shape[1:]) for x in (k, v)]
    table, keys = torch.arange(4, dtype=torch.int32)[None], torch.tensor([53], dtype=torch.int32)
    queries = torch.tensor([0, 9], dtype=torch.int32)
    assert same(
        whole.attention_paged(q[-9:], *pages, table, keys, queries, layer=layer, return_lse=True),
        alone.attention_paged(q[-9:], *pages, table, keys, queries, return_lse=True),
    )
    assert same(
        whole.decode(q[None, -1:], *pages, table, keys, layer=layer, return_lse=True),
        alone.decode(q[None, -1:], *pages, table, keys, return_lse=True),
    )


@pytest.mark.parametrize("layer", LAYERS)
def test_caches_masks_pages_and_plans_as_alone(layer: int) -> None:
    whole, alone = both(layer)
    pattern = compiled(TEXT)[0]
    cache, other = whole.KVCache(2, layer=layer), alone.KVCache(2)
    for n in (70, 1, 5):
        inputs = tensors(pattern, n, batch=2, layer=layer)
        assert torch.equal(cache.step(*inputs), other.step(*inputs))
    assert (cache.bytes, cache.allocated_bytes) == (other.bytes, other.allocated_bytes)
    assert isinstance(cache, whole.KVCache) and isinstance(cache.fork([1, 0]), whole.KVCache)
    assert not isinstance(other, whole.KVCache) and issubclass(type(cache), whole.KVCache)
    assert torch.equal(whole.dense_mask(9, 50, layer=layer), alone.dense_mask(9, 50))
    assert torch.equal(whole.dead_pages(130, 16, layer=layer), alone.dead_pages(130, 16))
    mine, theirs = whole.exchange_plan(100, 3, layer=layer), alone.exchange_plan(100, 3)
    assert mine.layer == layer and all(mine.bytes(a, b) == theirs.bytes(a, b) for a in range(3) for b in range(3))


def test_a_split_context_takes_the_layer_of_its_plan(tmp_path: Path) -> None:
    """One rank, which exchanges nothing: what is looked at is which package is called."""
    pattern, package = compiled(TEXT)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        for layer in LAYERS:
            q, k, v = tensors(pattern, 45, layer=layer)
            plan = package.exchange_plan(45, 1, layer=layer)
            out = package.attention_split(q, k, v, plan)
            assert torch.equal(out, package.attention(q, k, v, layer=layer))
            assert torch.equal(package.attention_split(q, k, v, plan=plan), out)
            assert torch.equal(package.sparse_all_gather(plan, k, v)[0], k)
        with pytest.raises(TypeError, match="exchange_plan"):
            package.attention_split(q, k, v, None)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(("layer", "error"), [(4, ValueError), (-1, ValueError), ("1", TypeError), (None, TypeError)])
def test_no_such_layer(layer: object, error: type[Exception]) -> None:
    pattern, package = compiled(TEXT)
    q, k, v = tensors(pattern, 20)
    calls = (
        lambda: package.attention(q, k, v, layer=layer),
        lambda: package.KVCache(1, layer=layer),
        lambda: package.dense_mask(20, layer=layer),
        lambda: package.part(layer),
    )
    for call in calls:
        with pytest.raises(error, match="layer"):
            call()
    with pytest.raises(ValueError, match=r"^small has layers 0 to 3; layer=9 is none of them$"):
        package.decode(q, k, v, None, None, layer=9)


def test_tensors_of_another_layer_are_refused() -> None:
    pattern, package = compiled(TEXT)
    with pytest.raises(ValueError, match=r"^small_h4_kv2_d16 has heads 0 to 3; q has 6"):
        package.attention(*tensors(pattern, 20, layer=1))
    with pytest.raises(ValueError, match=r"head_dim 32; q has 16"):
        package.attention(*tensors(pattern, 20, layer=1), layer=2)


def test_sinks_of_some_layers() -> None:
    """Of layer 2 only: the others are given none."""
    text = TEXT.replace("{layers: 2, ", "{layers: 2, sinks: learned, ")
    pattern, package = compiled(text)
    inputs = tensors(pattern, 43, layer=2)
    sinks = torch.randn(4)
    wanted, _ = reference.attention(pattern, *inputs, layer=2, sinks=sinks)
    assert off(package.attention(*inputs, layer=2, sinks=sinks), wanted) <= 2e-6
    with pytest.raises(TypeError, match=r"small_h4_kv1_d32_v24_sinks.*sinks"):
        package.attention(*inputs, layer=2)
    package.attention(*tensors(pattern, 43))
    assert [shape["sinks"] for shape in package.PATTERN["shapes"]] == [None, None, "learned", None]
    assert package.PATTERN["sinks"] is None and package.part(2).PATTERN["sinks"] == "learned"


def same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
