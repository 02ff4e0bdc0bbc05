"""How the CPU path cuts attention into calls: every kept pair once, narrow windows in place, threads by themselves."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor

from patterncc import reference
from patterncc.language.model import Pattern
from tests.package.made import HEAD, PATTERNS, TOLERANCE, check, compiled, exact, off, run, tensors, weights_like

WIDE = HEAD.replace("small", "wide") + "shards: [{heads: all, local: 40, stride: 5, offset: h}]"
NARROW = (
    HEAD.replace("small", "narrow") + "shards: [{heads: 0-2, local: 8, stride: 16, offset: h}, {heads: 3, local: 9}]"
)
# Windows of several lengths in one layer: cells of one class stand at distances that another does not reach.
REACHES = HEAD + (
    "shards: [{heads: 0, dense: true}, {heads: 1, local: 40 tokens}, {heads: 2, local: 5 tokens}, {heads: 3, sink: 1}]"
)


@pytest.fixture(autouse=True)
def by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATTERNCC_CPU", "torch")


def part(package: ModuleType, name: str) -> ModuleType:
    return importlib.import_module(f"{package.__name__}.{name}")


def plan_of(pattern: Pattern, package: ModuleType, queries: int, keys: int, **starts: int) -> tuple:
    q_start, kv_start = starts.get("q_start", keys - queries), starts.get("kv_start", 0)
    return part(package, "cpu.plan").plan(0, pattern.heads, 0, q_start, queries, kv_start, keys)


def calls_of(plan: tuple) -> Iterator[tuple]:
    for group in plan:
        for span in group.spans:
            for call in span.first_calls + span.more_calls:
                yield group, span, call


def times_attended(pattern: Pattern, package: ModuleType, queries: int, keys: int, **starts: int) -> Tensor:
    """In how many calls each query of a head meets each key: [heads, queries, keys]."""
    met = torch.zeros(pattern.heads, queries, keys, dtype=torch.int64)
    for group, span, call in calls_of(plan_of(pattern, package, queries, keys, **starts)):
        block = pattern.block
        for item, (unit, tile) in enumerate(zip(call.units.tolist(), call.tile.tolist(), strict=True)):
            first = span.first + call.tiles.first + tile * call.tiles.tokens
            at = (call.columns[item][:, None] * block + torch.arange(block)).flatten()[: call.keys]
            kept = torch.ones(call.tiles.tokens, call.keys, dtype=torch.bool)
            if call.kinds is not None:
                mask = call.kinds.mask(torch.float32, slice(item, item + 1), 1, 1)
                kept = mask.bias[0, 0] == 0
            if call.causal:
                kept = kept.tril()
            for head in group.heads[unit]:
                met[head, first : first + call.tiles.tokens, at] += kept.long()
    return met


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (150, 150), (33, 150), (150, 33), (1100, 1100)])
@pytest.mark.parametrize("name", [*PATTERNS, "wide", "narrow", "reaches"])
def test_every_kept_pair_is_in_one_call(name: str, queries: int, keys: int) -> None:
    pattern, package = compiled({"wide": WIDE, "narrow": NARROW, "reaches": REACHES}.get(name, name))
    met = times_attended(pattern, package, queries, keys)
    assert torch.equal(met, reference.dense_mask(pattern, 0, queries, keys).long())


@pytest.mark.parametrize("causal", [True, False])
def test_cells_of_one_number_have_one_mask(causal: bool) -> None:
    """Of all classes together: windows, bands and sinks of many lengths, of which no two may share a number."""
    parts = [
        "dense: true",
        *(f"local: {n} tokens" for n in (40, 5, 70, 17, 33, 1)),
        *(f"sink: {n} tokens" for n in (3, 19)),
    ]
    parts += ["local: 9 tokens, sink: 5 tokens, stride: 3"]
    if causal:
        parts += [f"strides: [{{every: 1, from: {low} tokens, to: {high} tokens}}]" for low, high in ((1, 9), (26, 63))]
        parts += ["strides: [{every: 1, from: 47 tokens}]"]
    shards = ", ".join(f"{{heads: {n}, {text}}}" for n, text in enumerate(parts))
    head = HEAD.replace("heads: 4\nkv_heads: 2", f"heads: {len(parts)}") + f"causal: {str(causal).lower()}\n"
    _, package = compiled(f"{head}shards: [{shards}]")
    cells = part(package, "cpu.cells")
    keeps, classes = part(package, "rules.masks").keeps, range(len(part(package, "pattern").CLASSES))
    found = cells.Cells.of(list(classes), 0, 160, 0, 160).cells
    token, masks = torch.arange(16), {}
    for klass in classes:
        for i, j in (found[klass] >= cells.OTHER).nonzero().tolist():
            mask = keeps(klass, (16 * i + token)[:, None], (16 * j + token)[None, :])
            assert torch.equal(masks.setdefault(int(found[klass, i, j]), mask), mask), (klass, i, j)
    assert len(masks) > len(parts)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_whatever_the_number_of_threads(threads: int, poisoned: None) -> None:
    """Threads share the heads; all of these tokens are more than one thread takes."""
    pattern, package = compiled(NARROW)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        part(package, "cpu.plan").plan.cache_clear()
        inputs = tensors(pattern, 1200)
        weights = weights_like(inputs)
        package.attention(*inputs)
        torch.set_num_threads(threads % 3 + 1)  # another thread may have made the plan
        run(lambda q, k, v: package.attention(q, k, v, return_lse=True), inputs, weights)
        torch.set_num_threads(threads)
        found = run(lambda q, k, v: package.attention(q, k, v, return_lse=True), inputs, weights)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    check(found, exact(pattern, inputs, weights), TOLERANCE[torch.float32])


def test_threads_work_alone() -> None:
    """Each has a thread, whatever it computes: the operations of one are not cut among all cores once more."""
    _, package = compiled(NARROW)
    before = torch.get_num_threads()

    def number(_: int) -> int:
        torch.ones(1 << 20).sum()
        return torch.get_num_threads()

    try:
        torch.set_num_threads(2)
        assert list(part(package, "cpu.workers").work(number, range(8))) == [1] * 8
        assert number(0) == 2, "the caller keeps its own"
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("text", [NARROW, WIDE], ids=["narrow", "wide"])
def test_windows_are_used_in_place(text: str) -> None:
    """A narrow window's whole span is one call without copies; of a wide one what all rows of larger tiles share."""
    pattern, package = compiled(text)
    in_place = [call for _, _, call in calls_of(plan_of(pattern, package, 4096, 4096)) if call.slide is not None]
    assert all(call.causal for call in in_place if call.tiles.count == 1 and call.tiles.first == 0)
    least = 64 if text == NARROW else 256
    assert any(call.tiles.tokens == least and len(call.units) > 8 for call in in_place)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("text", [NARROW, WIDE], ids=["narrow", "wide"])
def test_in_place_is_as_if_gathered(text: str, batch: int, monkeypatch: pytest.MonkeyPatch, poisoned: None) -> None:
    pattern, package = compiled(text)
    inputs = tensors(pattern, 1100, batch=batch)
    weights = weights_like(inputs)

    def found() -> dict[str, Tensor]:
        return run(lambda q, k, v: package.attention(q, k, v, return_lse=True), inputs, weights)

    keys, used = part(package, "cpu.keys"), []
    in_place = keys.Rows.in_place
    monkeypatch.setattr(keys.Rows, "in_place", lambda self, *at: used.append(x := in_place(self, *at)) or x)
    here = found()
    assert any(x is not None for x in used)
    monkeypatch.setattr(keys.Rows, "in_place", lambda self, *at: None)
    for name, x in found().items():
        assert torch.equal(x, here[name]), name


def test_first_rows_that_keep_everything_are_one_call() -> None:
    pattern, package = compiled(WIDE)
    calls = [call for _, _, call in calls_of(plan_of(pattern, package, 2048, 2048)) if call.causal]
    assert calls and all(call.tiles.tokens >= 40 * 16 for call in calls)
    later = plan_of(pattern, package, 1000, 2048)  # these queries are not the first
    assert not any(call.causal for _, _, call in calls_of(later))
    assert not any(call.causal for _, _, call in calls_of(plan_of(pattern, package, 1000, 1000, q_start=16)))


def test_ever_new_layouts_and_batches_keep_little() -> None:
    """What a plan knows of memory follows from strides and batch, and is kept for few of them. Results stay right."""
    pattern, package = compiled(NARROW)
    most, queries = part(package, "cpu.pieces").MOST_KEPT, torch.randn(3, pattern.heads, 300, 16)
    keys = torch.randn(2, 3, pattern.kv_heads, 340, 16)
    true = reference.attention(pattern, queries, *keys[:, :, :, :300])[0]
    for n in range(2 * most):
        k, v = (x[:, :, : 300 + n].contiguous()[:, :, :300] for x in keys)
        batch = 1 if n else 3
        assert off(package.attention(queries[:batch], k[:batch], v[:batch]), true[:batch]) <= TOLERANCE[torch.float32]
    calls = [
        call
        for group in part(package, "cpu.plan").plan(0, pattern.heads, 0, 0, 300, 0, 300, ())
        for span in group.spans
        for call in (*span.first_calls, *span.more_calls)
    ]
    kept = [step.starts for call in calls for steps in call.steps.values() for step in steps]
    assert most > 3 and max(map(len, kept)) <= most and any(len(x) > 3 for x in kept)
    assert max(len(call.steps) for call in calls) == 2
