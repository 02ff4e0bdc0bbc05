"""Layers that differ in heads and widths, in one package: each is served as by a package of its own."""

from __future__ import annotations

import importlib
import inspect
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

import patterncc
from patterncc import language, reference
from patterncc.language.model import Pattern
from tests.package.made import compiled, exact, off, run, tensors, weights_like

HEAD = "pattern: 1\nname: small\nheads: 4\nkv_heads: 2\nhead_dim: 16\nblock: 16\npromises: {}\n"
WINDOW = "shards: [{heads: all, local: 21 tokens, stride: 3, offset: g}]"
# Layer 0: 4 heads on 2, as the pattern says. Layers 1, 3: 6 heads on 3. Layer 2: wider, values less so, one KV head.
TEXT = (
    HEAD
    + "layers: 4\n"
    + "shards: [{heads: 0, dense: true}, {heads: rest, local: 2, offset: h, stride: 5}]\n"
    + f"layouts:\n- {{layers: [1, 3], heads: 6, kv_heads: 3, {WINDOW}}}\n"
    + "- {layers: 2, kv_heads: 1, head_dim: 32, v_head_dim: 24, shards: [{heads: all, local: 1, sink: 5 tokens}]}\n"
)
ALONE = [  # what each layer says, in a file of its own
    HEAD + "shards: [{heads: 0, dense: true}, {heads: rest, local: 2, offset: h, stride: 5}]\n",
    HEAD.replace("heads: 4\nkv_heads: 2", "heads: 6\nkv_heads: 3") + WINDOW,
    HEAD.replace("kv_heads: 2\nhead_dim: 16", "kv_heads: 1\nhead_dim: 32\nv_head_dim: 24")
    + "shards: [{heads: all, local: 1, sink: 5 tokens}]",
    HEAD.replace("heads: 4\nkv_heads: 2", "heads: 6\nkv_heads: 3") + WINDOW,
]
LAYERS = range(4)


def both(layer: int) -> tuple[ModuleType, ModuleType]:
    """The package of all layers, and that of the layer alone."""
    return compiled(TEXT)[1], compiled(ALONE[layer])[1]


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


def test_it_exports_what_every_package_does() -> None:
    whole, alone = both(0)
    assert set(whole.__all__) == {*alone.__all__, "part"}
    for name in set(alone.__all__) - {"PATTERN"}:
        assert inspect.signature(getattr(whole, name)) == inspect.signature(getattr(alone, name)), name
        assert getattr(whole, name).__doc__ == getattr(alone, name).__doc__, name
    facts = whole.PATTERN
    assert facts["layers"] == 4 and facts["heads"] is None and facts["kv_heads"] is None and facts["head_dim"] is None
    assert facts["shapes"][2] == {"heads": 4, "kv_heads": 1, "head_dim": 32, "v_head_dim": 24, "sinks": None}
    assert set(facts) == {*alone.PATTERN, "shapes"}
    assert whole.part(1) is whole.part(3) is not whole.part(0)
    assert whole.part(1).PATTERN["heads"] == 6


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


def test_functions_and_caches_are_pickled() -> None:
    pattern, package = compiled(TEXT)
    assert pickle.loads(pickle.dumps(package.attention)) is package.attention
    assert pickle.loads(pickle.dumps(package.KVCache)) is package.KVCache
    cache = package.KVCache(1, layer=2)
    inputs = tensors(pattern, 40, layer=2)
    cache.step(*inputs)
    copy = pickle.loads(pickle.dumps(cache))
    assert torch.equal(copy.step(*inputs), cache.step(*inputs))


class Model(torch.nn.Module):
    def __init__(self, package: ModuleType) -> None:
        super().__init__()
        self.package = package

    def forward(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return self.package.attention(q, k, v, layer=1).sum() + self.package.attention(x, y, z, layer=2).sum()


def test_it_is_compiled_whole_and_exported() -> None:
    pattern, package = compiled(TEXT)
    inputs = [*tensors(pattern, 37, layer=1), *tensors(pattern, 37, layer=2)]
    model = Model(package)
    wanted = model(*inputs)
    assert torch.equal(torch.compile(model, fullgraph=True, backend="aot_eager")(*inputs), wanted)
    exported = torch.export.export(model, tuple(inputs))
    assert torch.equal(exported.module()(*inputs), wanted)
    names = [str(node.target) for node in exported.graph.nodes if "attention" in str(node.target)]
    assert len(names) == 2 and "h6_kv3_d16" in names[0] and "h4_kv1_d32_v24" in names[1]


def test_a_copy_needs_nothing_of_patterncc(tmp_path: Path) -> None:
    (tmp_path / "several.yaml").write_text(TEXT.replace("name: small", "name: several"))
    patterncc.compile(tmp_path / "several.yaml", output=tmp_path)
    script = (
        "import sys, torch, several\n"
        "out = several.attention(*(torch.randn(1, h, 33, 16) for h in (6, 3, 3)), layer=3)\n"
        "assert not [name for name in sys.modules if name.startswith('patterncc')]\n"
        "print(several.__name__, list(out.shape), several.part(3).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "several [1, 6, 33, 16] several.h6_kv3_d16\n", done.stderr


@pytest.mark.parametrize("text", [TEXT, ALONE[1]], ids=["by layer again", "of one shape"])
def test_an_earlier_import_goes_on(
    text: str, tmp_path: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is imported anew, as another package by layer or as one of a single shape."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def imported(content: str) -> tuple[Pattern, ModuleType]:
        (tmp_path / "twice.yaml").write_text(content.replace("name: small", "name: twice"))
        patterncc.compile(tmp_path / "twice.yaml", output=tmp_path)
        importlib.invalidate_caches()
        sys.modules.pop("twice", None)
        return language.load(tmp_path / "twice.yaml"), importlib.import_module("twice")

    before = set(sys.modules)
    try:
        old_pattern, old = imported(TEXT)
        new_pattern, new = imported(text.replace("local: 21 tokens", "local: 3"))
        assert old is not new
        for pattern, package in ((old_pattern, old), (new_pattern, new), (old_pattern, old)):
            layer = pattern.layers - 1
            inputs = tensors(pattern, 90, layer=layer)
            weights = weights_like(inputs)
            attend = lambda q, k, v: package.attention(q, k, v, layer=layer, return_lse=True)  # noqa: E731, B023
            assert off(run(attend, inputs, weights)["dk"], exact(pattern, inputs, weights, layer=layer)["dk"]) <= 2e-6
    finally:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "twice":
                del sys.modules[name]


def test_stated_sizes_that_do_not_differ_change_nothing() -> None:
    stated = HEAD + f"layers: 2\nlayouts: [{{layers: 0-1, heads: 4, kv_heads: 2, head_dim: 16, {WINDOW}}}]\n"
    plain = HEAD + f"layers: 2\n{WINDOW}\n"
    made = [patterncc.pipeline.generate(language.loads(text)) for text in (stated, plain)]
    assert not made[0].parts and made[0].sources == made[1].sources


def same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
