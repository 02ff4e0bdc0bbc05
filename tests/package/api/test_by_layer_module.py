"""Layers that differ in heads and widths, in one package: its exports, pickles, graphs and copies."""

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
from patterncc import language
from patterncc.language.model import Pattern
from tests.package.api.layered import ALONE, HEAD, TEXT, WINDOW, both
from tests.package.made import compiled, exact, off, run, tensors, weights_like


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
