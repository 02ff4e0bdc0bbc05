"""A package's name is imported again: what the first import gave goes on as it was, and is right."""

from __future__ import annotations

import copy
import importlib
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

import patterncc
from patterncc import language, reference

TEXT = "pattern: 1\nname: {name}\nheads: 2\nhead_dim: 16\nblock: 16\npromises: {{}}\nshards: [{{heads: all, {part}}}]\n"
PARTS = [
    "local: 1",
    "local: 20 tokens, stride: 3",
    "local: 1, random: {blocks: 1, seed: 3}",
    "mask: mask.npy, local: 1",
]
LENGTH = 100


@pytest.fixture
def folder(tmp_path: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where packages are written and found; afterwards none of them is imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # whole seconds do not tell new sources from old ones
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("mine", "x", "x_y"):
            del sys.modules[name]


def write(folder: Path, part: str, name: str = "mine", seed: int = 0) -> language.Pattern:
    """The pattern, compiled into the folder."""
    folder.mkdir(exist_ok=True)
    np.save(folder / "mask.npy", np.random.default_rng(seed).random((7, 7)) < 0.4)
    (folder / f"{name}.yaml").write_text(TEXT.format(name=name, part=part))
    patterncc.compile(folder / f"{name}.yaml", output=folder)
    importlib.invalidate_caches()
    return language.load(folder / f"{name}.yaml")


def inputs() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, 2, LENGTH, 16, requires_grad=True) for _ in range(3)]


def right(attention: Callable[..., Tensor], pattern: language.Pattern) -> bool:
    """Output and gradients are those of the definition."""
    x, y = inputs(), [x.detach().double().requires_grad_() for x in inputs()]
    out, (true, _) = attention(*x), reference.attention(pattern, *y)
    weight = torch.randn(true.shape, dtype=torch.float64)
    out.backward(weight.float())
    true.backward(weight)
    pairs = [(out.detach(), true.detach()), *((a.grad, b.grad) for a, b in zip(x, y, strict=True))]
    return all((a - b).norm() <= 1e-5 * b.norm() for a, b in pairs)  # type: ignore[operator, union-attr]


def delete(which: str) -> None:
    """What a notebook may do before it imports anew."""
    gone = [name for name in sys.modules if name == "mine" or (which == "all" and name.startswith("mine."))]
    for name in gone:
        del sys.modules[name]


def imported(how: str, old: ModuleType) -> ModuleType:
    if how == "reload":
        return importlib.reload(old)
    delete(how)
    return importlib.import_module("mine")


@pytest.mark.parametrize("was_used", [True, False], ids=["used", "not used"])
@pytest.mark.parametrize("how", ["reload", "all", "the package alone"])
@pytest.mark.parametrize("parts", [PARTS[:2], PARTS[2:], [PARTS[3]] * 2], ids=["arithmetic", "tables", "masks"])
def test_an_earlier_import_stays_right(parts: list[str], how: str, was_used: bool, folder: Path) -> None:
    """Three patterns of one name, of which each is held while the next one is compiled, imported and used. Also where
    the first has not been used before, so that most of it is imported later."""
    held = []
    old: ModuleType | None = None
    for seed, part in enumerate((*parts, "dense: true")):
        pattern = write(folder, part, seed=seed)
        package = importlib.import_module("mine") if old is None else imported(how, old)
        held.append((package.attention, package.dense_mask, package.KVCache, pattern))
        assert not was_used or right(package.attention, pattern)
        old = package
    for attention, dense_mask, _, pattern in (*held, *held[::-1]):
        assert right(attention, pattern)
        assert torch.equal(dense_mask(LENGTH), reference.dense_mask(pattern, 0, LENGTH))
    q, k, v = inputs()
    for attention, _, cache, _ in held[:1] if "random" not in parts[0] and "mask" not in parts[0] else ():
        stepped = cache(1).step(q, k, v)
        assert torch.allclose(stepped, attention(q, k, v), atol=1e-5)


@pytest.mark.interpret
@pytest.mark.parametrize("how", ["reload", "all"])
def test_kernels_of_an_earlier_import(how: str, folder: Path) -> None:
    """They are imported, and their sources read, when the files are those of another pattern."""
    held, package = [], ModuleType("none")
    for part in ("local: 1", "local: 20 tokens, stride: 3"):
        pattern = write(folder, part)
        package = imported(how, package) if held else importlib.import_module("mine")
        held.append((package.attention, pattern))
    q, k, v = (x.detach() for x in inputs())
    for attention, pattern in held:
        true, _ = reference.attention(pattern, q, k, v)
        assert torch.allclose(attention(q, k, v).double(), true, atol=1e-5)


@pytest.mark.parametrize("how", ["reload", "all"])
def test_compiled_and_exported(how: str, folder: Path) -> None:
    """torch.compile finds a held function's globals by its module's name; an exported program, operators by theirs."""

    class Attend(torch.nn.Module):
        def __init__(self, attention: Callable[..., Tensor]) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return self.attention(q, k, v)

    held, package = [], ModuleType("none")
    for part in ("local: 1", "local: 20 tokens, stride: 3"):
        pattern = write(folder, part)
        package = imported(how, package) if held else importlib.import_module("mine")
        held.append((package.attention, pattern))
    arguments = tuple(x.detach() for x in inputs())
    for attention, pattern in held:
        true, _ = reference.attention(pattern, *arguments)
        compiled = torch.compile(attention, fullgraph=True, backend="eager")
        exported = torch.export.export(Attend(attention), arguments).module()
        for found in (compiled(*arguments), exported(*arguments)):
            assert torch.allclose(found.double(), true, atol=1e-5)
        torch._dynamo.reset()


def test_names_that_look_alike(folder: Path) -> None:
    """`x.y_z` and `x_y.z`: dots become underscores in the names of operators."""
    patterns = [write(folder / "x", "local: 1", "y_z"), write(folder / "x_y", "local: 3", "z")]
    packages = [importlib.import_module(name) for name in ("x.y_z", "x_y.z")]
    for package, pattern in zip(packages, patterns, strict=True):
        assert right(package.attention, pattern)
    same = [importlib.import_module(f"{package.__name__}.api.ops")._forward._qualname for package in packages]
    assert len(set(same)) == 2


def test_operators_have_the_same_names_in_every_process(folder: Path) -> None:
    """An exported program finds them again, and never those of other rules. No process imports torch's compiler, which
    takes as long as torch, because it imports a package."""
    say = "import sys, mine.api.ops as ops; print('torch._dynamo' in sys.modules, ops._forward._qualname)"
    found = []
    for part in ("local: 1", "local: 1", "local: 2"):
        write(folder, part)
        run = subprocess.run([sys.executable, "-c", say], cwd=folder, capture_output=True, text=True, check=True)
        found.append(run.stdout)
    assert found[0] == found[1] != found[2] and all(x.startswith("False ") for x in found)


class Holder(torch.nn.Module):
    """A layer that keeps the package, its functions and a cache."""

    def __init__(self, package: ModuleType) -> None:
        super().__init__()
        self.package, self.attention, self.plan = package, package.attention, package.exchange_plan(90, 2)
        self.cache, self.weight = package.KVCache(1), torch.nn.Parameter(torch.ones(1))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.weight * self.package.attention(q, k, v) + self.cache.step(q, k, v)


@pytest.mark.parametrize("twin", [copy.deepcopy, copy.copy, lambda x: pickle.loads(pickle.dumps(x))])
def test_what_holds_a_package_is_copied_and_pickled(twin: Callable[[Holder], Holder], folder: Path) -> None:
    write(folder, "local: 2")
    layer = Holder(importlib.import_module("mine"))
    q, k, v = (x.detach() for x in inputs())
    layer.cache.step(q, k, v)
    other = twin(layer)
    assert other.package is layer.package and other.attention is layer.attention
    if twin is not copy.copy:
        assert torch.equal(other(q, k, v), layer(q, k, v)) and other.weight is not layer.weight
    assert other.plan.needs[1][0].tolist() == layer.plan.needs[1][0].tolist()


def test_an_earlier_import_is_not_pickled_as_the_later_one(folder: Path) -> None:
    write(folder, "local: 1")
    old = importlib.import_module("mine")
    write(folder, "local: 2")
    delete("all")
    importlib.import_module("mine")
    assert copy.deepcopy(old) is old
    for held in (old, old.attention):
        with pytest.raises(pickle.PicklingError):
            pickle.dumps(held)
