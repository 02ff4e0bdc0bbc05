"""A context split over ranks: the plan against the definition's mask, and four processes against one."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import patterncc
from patterncc import language, reference
from patterncc.analysis.costs.forecast import forecast
from patterncc.language.model import Pattern
from patterncc.passes import lower
from patterncc.runtime.gallery import find, shipped
from tests.package.parallel.split_rank import drawn

ROOT = Path(__file__).parents[3]
HEAD = "pattern: 1\nname: split\nheads: 4\nkv_heads: 2\nhead_dim: 32\nblock: 16\n"
PATTERNS = {
    "strided": HEAD + "shards: [{heads: all, local: 2, stride: 4, offset: h}]\n",
    "tokens": HEAD + "shards: [{heads: all, local: 21 tokens, sink: 5 tokens}]\n",
    "dense_head": HEAD + "shards: [{heads: 0, dense: true}, {heads: rest, local: 1}]\n",
    "drawn": HEAD + "shards: [{heads: all, local: 1, random: {blocks: 2, seed: 7}}]\n",
    "values": HEAD + "v_head_dim: 48\nshards: [{heads: all, local: 21 tokens, stride: 4, offset: g}]\n",
    "both_ways": HEAD
    + "causal: false\nshards: [{heads: all, local: {before: 2, after: 3}, globals: {columns: [0]}}]\n",
}
LENGTHS_AND_SPLITS = [(16 * 12, 4), (16 * 9 + 5, 4), (16 * 9 + 5, [0, 1, 1, 7, 10]), (37, 4), (200, 1)]
TOLERANCE = 1e-5  # fp32 sums of unit normals, in another order


def compiled(name: str, folder: Path) -> tuple[Pattern, ModuleType]:
    file = folder / "split.yaml"
    file.write_text(PATTERNS[name])
    return language.load(file), patterncc.compile(file).load()


def needed(pattern: Pattern, kv_head: int, rows: tuple[int, int], length: int) -> list[int]:
    """By the definition: blocks outside `rows` of which a query head of the KV head, in these rows, keeps a token."""
    share = pattern.heads // pattern.kv_heads
    heads = range(kv_head * share, (kv_head + 1) * share)
    first, stop = (min(row * pattern.block, length) for row in rows)
    seen = torch.stack([torch.as_tensor(reference.mask(pattern, 0, head, length)) for head in heads]).any(0)
    tokens = seen[first:stop].any(0).nonzero()[:, 0]
    return sorted({int(token) // pattern.block for token in tokens} - set(range(*rows)))


@pytest.mark.parametrize(("length", "ranks"), LENGTHS_AND_SPLITS)
@pytest.mark.parametrize("name", PATTERNS)
def test_the_plan_is_what_the_definition_reads(name: str, length: int, ranks: int | list[int], tmp_path: Path) -> None:
    pattern, package = compiled(name, tmp_path)
    plan = package.exchange_plan(length, ranks)
    for target in range(plan.ranks):
        rows = plan.boundaries[target], plan.boundaries[target + 1]
        for head in range(pattern.kv_heads):
            of_each = [plan.blocks(source, target)[head].tolist() for source in range(plan.ranks)]
            assert of_each[target] == []
            assert [block for blocks in of_each for block in blocks] == needed(pattern, head, rows, length)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("ranks", [2, 4, 5])
def test_its_bytes_are_those_of_the_forecast(name: str, ranks: int, tmp_path: Path) -> None:
    pattern, package = compiled(name, tmp_path)
    length = 16 * 20 - 3
    plan = package.exchange_plan(length, ranks)
    sent = sum(plan.bytes(a, b) for a in range(ranks) for b in range(ranks))
    assert sent == forecast(lower(pattern), length, "bf16", ranks).model["exchange_bytes"] > 0


@pytest.mark.parametrize("name", shipped())
def test_the_forecast_of_a_shipped_pattern_is_its_plan_and_its_mask(name: str) -> None:
    """What is exchanged, by the package's plan; what a step reads, by the package's own mask of the last token."""
    pattern, package = language.load(find(name)), patterncc.compile(name).load()
    blocks, ranks = 21, 4
    length = blocks * pattern.block + 5
    said = forecast(lower(pattern), length, "bf16", ranks)
    sent = read = 0
    for entry in said.layers:
        plan = package.exchange_plan(length, ranks, layer=entry["layers"][0])
        of_layer = sum(plan.bytes(a, b) for a in range(ranks) for b in range(ranks))
        row = package.dense_mask(1, length, layer=entry["layers"][0])[:, 0]
        of = pattern.shape(entry["layers"][0])
        of_token = 2 * (of.head_dim + of.v_head_dim)
        seen = row.unflatten(0, (of.kv_heads, -1)).any(1)
        assert entry["exchange_bytes"] == of_layer
        assert [head["kv_bytes_read"] for head in entry["kv_heads"]] == [of_token * int(x) for x in seen.sum(1)]
        sent += len(entry["layers"]) * of_layer
        read += len(entry["layers"]) * of_token * int(seen.sum())
    assert (said.model["exchange_bytes"], said.model["kv_bytes_read"]) == (sent, read)
    assert said.model["exchange_bytes_dense"] >= sent > 0


def test_some_heads_of_a_tensor_parallel_rank(tmp_path: Path) -> None:
    _, package = compiled("dense_head", tmp_path)
    both, second = package.exchange_plan(160, 2), package.exchange_plan(160, 2, head_offset=2)
    assert len(both.needs[1]) == 2 and len(second.needs[1]) == 1
    assert second.blocks(0, 1)[0].tolist() == both.blocks(0, 1)[1].tolist() == []
    assert both.blocks(0, 1)[0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"ranks": 0}, "one rank or more"),
        ({"ranks": [0, 3]}, "from 0 to 10"),
        ({"ranks": [0, 7, 3, 10]}, "rise"),
        ({"ranks": 2, "layer": 1}, "layer 0 only"),
        ({"ranks": 2, "heads": 5}, "heads 0 to 3"),
    ],
)
def test_what_cannot_be_split_is_said(arguments: dict[str, object], said: str, tmp_path: Path) -> None:
    _, package = compiled("strided", tmp_path)
    with pytest.raises(ValueError, match=said):
        package.exchange_plan(160, **arguments)


@pytest.mark.slow
def test_four_processes_equal_one(tmp_path: Path) -> None:
    """Output, LSE and gradients of each rank, and the bytes that it put on the wire; of every pattern in turn, and
    under autocast, which halves the bytes."""
    length = 16 * 9 + 5
    tasks, patterns = [], []
    for name, text in PATTERNS.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(text.replace("name: split", f"name: {name}"))
        for ranks in (4, [0, 1, 1, 7, 10]):
            patterns.append(language.load(file))
            tasks.append({"name": name, "length": length, "ranks": ranks})
        patterns.append(patterns[-1])
        tasks.append({"name": name, "length": length, "ranks": 4, "autocast": True})
        patterncc.compile(file, output=tmp_path)
    torch.save(tasks, tmp_path / "tasks.pt")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("split_rank.py")), str(tmp_path)]
    processes = [subprocess.Popen([*command, str(rank), "4"], env=environment) for rank in range(4)]
    try:
        assert [process.wait(timeout=240) for process in processes] == [0] * 4
    finally:
        for process in processes:
            process.kill()
    found = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(4)]

    for number, pattern in enumerate(patterns):
        *leaves, dout, dlse = drawn(length, pattern.v_head_dim)
        q, k, v = (x.requires_grad_() for x in leaves)
        mask = torch.stack([torch.as_tensor(reference.mask(pattern, 0, head, length)) for head in range(4)])
        scores = (q @ k.repeat_interleave(2, 1).transpose(-1, -2) * 32**-0.5).masked_fill(~mask, float("-inf"))
        out, lse = scores.softmax(-1) @ v.repeat_interleave(2, 1), scores.logsumexp(-1)
        torch.autograd.backward((out, lse), (dout, dlse))
        parts = [rank[number] for rank in found]
        for key, wanted in {"out": out, "lse": lse, "dq": q.grad, "dk": k.grad, "dv": v.grad}.items():
            got = torch.cat([part[key] for part in parts], 2)
            assert wanted is not None
            tolerance = 0.02 if "autocast" in tasks[number] else TOLERANCE  # bfloat16 has 8 bits
            assert (got - wanted).norm() <= tolerance * wanted.norm(), (tasks[number], key)
        for part in parts:
            assert part["sent_forward"] == part["planned_forward"], tasks[number]
            assert part["sent_backward"] == part["planned_backward"], tasks[number]
        assert any(part["sent_forward"] for part in parts)


def test_keys_and_values_of_two_dtypes(tmp_path: Path) -> None:
    """Under autocast they are cast before they travel, as rotary embeddings leave them: keys in float32, values not."""
    _, package = compiled("strided", tmp_path)
    plan = package.exchange_plan(85, 1)
    q, k, v, *_ = (x.float() for x in drawn(85, 32))
    wanted = package.attention(q, k, v)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        with pytest.raises(TypeError, match=r"k and v must have one dtype, not bfloat16 and float32"):
            package.attention_split(q, k, v.bfloat16(), plan)
        with torch.autocast("cpu", torch.bfloat16):
            got = package.attention_split(q, k, v.bfloat16(), plan)
            gathered = package.sparse_all_gather(plan, k, v)
    finally:
        torch.distributed.destroy_process_group()
    assert (got - wanted).norm() < 0.02 * wanted.norm()  # bfloat16 has 8 bits
    assert {got.dtype, *(x.dtype for x in gathered)} == {torch.bfloat16}


def test_the_package_says_it_in_its_api(tmp_path: Path) -> None:
    _, package = compiled("strided", tmp_path)
    module = importlib.import_module(f"{package.__name__}.parallel.exchange")
    assert package.exchange_plan is module.exchange_plan and package.sparse_all_gather is module.sparse_all_gather
