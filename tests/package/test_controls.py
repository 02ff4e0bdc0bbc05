"""Controls: one wrong number in a package, and the comparisons of this folder fail."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
import torch

from patterncc import reference
from tests.package.made import HEAD, TOLERANCE, compiled, exact, off, tensors, weights_like

pytestmark = pytest.mark.usefixtures("cpu_path")
NAME = HEAD.replace("small", "spoiled")  # its own package, which no other test has used
TEXT = NAME + "shards: [{heads: all, local: 21 tokens, stride: 4, offset: h, sink: 1}]"


def spoiled(part: str) -> tuple[ModuleType, ModuleType]:
    _, package = compiled(TEXT)
    return package, importlib.import_module(f"{package.__name__}.{part}")


def error(package: ModuleType, length: int = 150) -> float:
    """The error of attention's output, in fp32."""
    pattern, _ = compiled(TEXT)
    for part, kept in (("cpu.plan", "plan"), ("cpu.compiled", "plan"), ("cpu.compiled", "_table")):
        getattr(importlib.import_module(f"{package.__name__}.{part}"), kept).cache_clear()
    inputs = tensors(pattern, length)
    return off(package.attention(*inputs), exact(pattern, inputs, weights_like(inputs))["out"])


def changed(rules: dict[str, object], **parts: object) -> dict[str, object]:
    return {**rules, **parts}


@pytest.mark.parametrize("what", ["offset", "window", "sink", "class of a head"])
def test_one_wrong_number(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package, layout = spoiled("rules.masks")
    paths = [importlib.import_module(f"{package.__name__}.{part}") for part in ("cpu.plan", "cpu.compiled")]
    assert error(package) <= TOLERANCE[torch.float32]
    first = dict(layout.CLASSES[0])
    stride = next(n for n, term in enumerate(first["terms"]) if term[6] == 4)
    if what == "offset":
        wrong = list(first["terms"])
        wrong[stride] = (*wrong[stride][:7], (wrong[stride][7] + 1) % 4, *wrong[stride][8:])
        rules = changed(first, terms=tuple(wrong))
    elif what == "window":
        rules = changed(first, window=(first["window"][0] + 1, first["window"][1]))
    elif what == "sink":
        rules = changed(first, sink=17)
    else:
        rules = first
        for path in paths:
            heads = (path.CLASS_OF[0][1], *path.CLASS_OF[0][1:])
            monkeypatch.setattr(path, "CLASS_OF", (heads, *path.CLASS_OF[1:]))
    wrong_classes = (rules, *layout.CLASSES[1:])
    for part in (layout, paths[1]):
        monkeypatch.setattr(part, "CLASSES", wrong_classes)
    try:
        assert error(package) > 100 * TOLERANCE[torch.float32]
    finally:
        monkeypatch.undo()
        assert error(package) <= TOLERANCE[torch.float32]


@pytest.mark.parametrize("pair", [(0, 0), (149, 149), (149, 130), (70, 3)], ids=str)
def test_one_wrong_token_pair_in_the_definition(pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A single bit of 22,500, in one head of four, is more than the tolerance."""
    _, package = compiled(TEXT)
    assert error(package) <= TOLERANCE[torch.float32]
    true_mask = reference.dense_mask

    def wrong(*args: object, **kwargs: object) -> torch.Tensor:
        mask = true_mask(*args, **kwargs)  # type: ignore[arg-type]
        mask[2, pair[0], pair[1]] ^= True
        return mask

    monkeypatch.setattr(reference, "dense_mask", wrong)
    assert error(package) > 100 * TOLERANCE[torch.float32]


def test_the_mask_for_inspection_is_the_definition() -> None:
    pattern, package = compiled(TEXT)
    for queries, keys in ((150, 150), (33, 150), (150, 33)):
        assert torch.equal(package.dense_mask(queries, keys), reference.dense_mask(pattern, 0, queries, keys))
