"""A pattern's own scale: every function's default, on every path, against dense attention in fp64 with that number."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from patterncc import reference
from patterncc.language import Pattern
from tests.package.made import HEAD, TOLERANCE, check, compiled, off, run, tensors, weights

FP32 = TOLERANCE[torch.float32]
SCALE = 0.7  # the default is 0.25
SHARDS = "shards: [{heads: 0-1, local: 21 tokens, sink: 5 tokens}, {heads: rest, stride: 3}]"
SCALED = HEAD + f"scale: {SCALE}\n" + SHARDS
BY_LAYER = (
    HEAD.replace("heads: 4", "heads: 4\nlayers: 2", 1)
    + "layouts: [{layers: 0, shards: [{heads: all, stride: 3}]}, "
    + "{layers: 1, head_dim: 32, shards: [{heads: all, local: 2}]}]\n"
)


def plain() -> Pattern:
    """The same pattern without the key: the witness is given the number instead."""
    return compiled(HEAD + SHARDS)[0]


def exact(pattern: Pattern, inputs: tuple[Tensor, ...], by: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return reference.attention(pattern, q, k, v, scale=SCALE)

    return run(attend, [x.double() for x in inputs], by)


def test_attention_and_its_gradients(path: str) -> None:
    pattern, package = compiled(SCALED)
    inputs = tensors(pattern, 37, 69)
    by = weights(inputs[0])
    true = exact(plain(), inputs, by)
    check(run(lambda q, k, v: package.attention(q, k, v, return_lse=True), inputs, by), true, 4 * FP32)
    own, _ = reference.attention(pattern, *inputs)
    assert off(own, true["out"]) == 0  # the definition's default is the pattern's too
    by_default, _ = reference.attention(plain(), *inputs)
    assert off(by_default, true["out"]) > 0.05  # negative control: the scale matters


def test_packed_paged_and_decoded(path: str) -> None:
    pattern, package = compiled(SCALED)
    q, k, v = tensors(pattern, 5, 45)
    true, _ = reference.attention(plain(), q.double(), k.double(), v.double(), scale=SCALE)
    tokens = [x[0].transpose(0, 1).contiguous() for x in (q, k, v)]
    starts, ends = torch.tensor([0, 5], dtype=torch.int32), torch.tensor([0, 45], dtype=torch.int32)
    found = package.attention_varlen(*tokens, starts, ends, 5, 45)
    assert off(found.transpose(0, 1)[None], true) <= FP32
    caches = [torch.full((3, 16, 2, 16), float("nan")) for _ in range(2)]
    for cache, x in zip(caches, tokens[1:], strict=True):
        cache.view(48, 2, 16)[:45] = x
    table, lengths = torch.tensor([[0, 1, 2]], dtype=torch.int32), torch.tensor([45], dtype=torch.int32)
    found = package.attention_paged(tokens[0], *caches, table, lengths, starts)
    assert off(found.transpose(0, 1)[None], true) <= FP32
    found = package.decode(tokens[0][None, -1:], *caches, table, lengths)
    assert off(found.transpose(1, 2), true[:, :, -1:]) <= FP32


@pytest.mark.parametrize("cuts", [[60], [33, 20, 1, 1, 5]])
def test_the_cache(cuts: list[int]) -> None:
    pattern, package = compiled(SCALED)
    inputs = tensors(pattern, sum(cuts))
    true, _ = reference.attention(plain(), *(x.double() for x in inputs), scale=SCALE)
    cache = package.KVCache(1)
    parts = zip(*(x.split(cuts, dim=2) for x in inputs), strict=True)
    assert off(torch.cat([cache.step(*part) for part in parts], 2), true) <= FP32
    other, _ = reference.attention(plain(), *(x.double() for x in inputs), scale=0.1)
    assert off(package.KVCache(1).step(*inputs, scale=0.1), other) <= FP32


def test_an_argument_wins(path: str) -> None:
    pattern, package = compiled(SCALED)
    inputs = tensors(pattern, 20)
    for scale in (0.1, 0.0, -0.3):
        true, _ = reference.attention(plain(), *(x.double() for x in inputs), scale=scale)
        assert off(package.attention(*inputs, scale=scale), true) <= FP32
        assert off(reference.attention(pattern, *(x.double() for x in inputs), scale=scale)[0], true) == 0


def test_calls_like_one_before_tell_the_two_apart() -> None:
    """A short way repeats calls of the same shapes: with the pattern's scale, another one, and the pattern's again."""
    pattern, package = compiled(SCALED)
    inputs = tensors(pattern, 20)
    first = [package.attention(*inputs) for _ in range(3)][-1]
    other = package.attention(*inputs, scale=0.25)
    assert off(package.attention(*inputs), first) == 0
    assert off(package.attention(*inputs, scale=SCALE), first) == 0
    assert off(other, first) > 0.05


@pytest.mark.parametrize(("said", "scales"), [("", (0.25, 32**-0.5)), ("scale: 0.7\n", (0.7, 0.7))])
def test_layers_of_several_widths(said: str, scales: tuple[float, float]) -> None:
    pattern, package = compiled(BY_LAYER + said)
    for layer, scale in enumerate(scales):
        inputs = tensors(pattern, 40, layer=layer)
        true, _ = reference.attention(pattern, *(x.double() for x in inputs), layer=layer, scale=scale)
        assert off(package.attention(*inputs, layer=layer), true) <= FP32
    assert package.PATTERN["scale"] == (0.7 if said else None)


@pytest.mark.parametrize("direction", ["forward", "decode"])
def test_tuning_compares_with_the_patterns_scale(direction: str) -> None:
    _, package = compiled(SCALED)
    trials = import_module(f"{package.__name__}.tuning.trials")
    shape = trials.Shape(64, 1, torch.float32, torch.device("cpu"))
    (trial,) = trials.trials(direction, shape, [(0, 1)], 45)
    call, wanted = trial.first
    assert trials.error(call(), wanted) <= FP32


def test_kernels_are_those_of_the_pattern_without_the_key() -> None:
    """The scale is a number of the call: only what chooses it and what tells of it differ."""
    (one, scaled), (two, unscaled) = compiled(SCALED), compiled(HEAD + SHARDS)
    found, base = sources(scaled), sources(unscaled)
    assert {name for name in found | base if found.get(name) != base.get(name)} <= {"pattern.py", "manifest.json"}
    assert (scaled.PATTERN["scale"], unscaled.PATTERN["scale"]) == (SCALE, None)
    assert one.scale == SCALE and two.scale is None


def sources(package: ModuleType) -> dict[str, bytes]:
    folder = Path(package.__file__ or "").parent
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.suffix in (".py", ".json", ".c", ".h")
    }
