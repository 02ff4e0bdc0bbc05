"""What serves without waiting for the device: decoding as a captured graph, and the compact cache step by step."""

from __future__ import annotations

import gc
import importlib

import pytest
import torch

from tests.gpu import dense
from tests.gpu.conftest import DEVICES, Device
from tests.gpu.test_kernels import Import


@pytest.mark.parametrize("name", ["gpu_strided", "gpu_tokens"])
def test_the_compact_cache(name: str, package: Import, device: Device) -> None:
    """A prompt, then token by token; once all is allocated a step copies nothing that it would have to wait for."""
    module, prompt, length = package(name), 37 * device.times, 37 * device.times + 5
    q, k, v = dense.inputs(module, length, length, device.dtype)
    given = [x.to(device.name, device.dtype) for x in (q, k, v)]
    cache = module.KVCache(2, dtype=device.dtype, device=device.name, max_length=length)
    outs = [cache.step(*(x[:, :, :prompt] for x in given)), cache.step(*(x[:, :, prompt : prompt + 1] for x in given))]
    try:
        if device.name == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        outs += [cache.step(*(x[:, :, t : t + 1] for x in given)) for t in range(prompt + 1, length)]
    finally:
        if device.name == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    wanted, _ = dense.attention(q, k, v, module.dense_mask(length))
    assert dense.error(torch.cat(outs, 2), wanted) < device.tolerance


@pytest.mark.gpu
@pytest.mark.parametrize("kept", [64, 4096], ids=["one program", "several programs"])
def test_decoding_in_a_graph(kept: int, package: Import) -> None:
    """A replay takes what then stands in the query, the lengths and the table."""
    module, page = package("gpu_strided"), 16
    caches = torch.randn(2, 2 * kept // page, page, 2, 32, device="cuda", dtype=torch.bfloat16)
    table = torch.randperm(2 * kept // page, device="cuda").int().view(2, -1)
    q, lengths = torch.randn(2, 1, 4, 32, device="cuda", dtype=torch.bfloat16), torch.tensor([kept, 1]).int().cuda()

    def step() -> torch.Tensor:
        return module.decode(q, *caches, table, lengths)

    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    for first, second in ((kept, 1), (33, kept - 7)):
        q.normal_()
        lengths.copy_(torch.tensor([first, second]))
        table.copy_(table.flip(0))
        out.fill_(torch.nan)
        graph.replay()
        replayed = out.clone()
        assert torch.equal(replayed, step()) and replayed.isfinite().all()


@pytest.mark.parametrize("device", DEVICES[1:], indirect=True)
@pytest.mark.parametrize("splits", [3, (3, 2)], ids=["each class", "near keys shared"])
@pytest.mark.parametrize("name", ["gpu_strided", "gpu_drawn"])
def test_parts_of_a_tile_in_one_launch_and_in_two(
    name: str, splits: int | tuple[int, int], package: Import, device: Device
) -> None:
    """The last program that arrives merges them, or another launch does: equal but for the order of sums, which is
    always the same."""
    module, lengths = package(name), [17 * device.times, 1, 50 * device.times]
    forward = importlib.import_module(f"{name}.launch.forward")
    q, k, v = dense.inputs(module, 1, max(lengths), device.dtype, batch=3)
    cache = [x.to(device.name) for x in dense.paged(k, v, lengths, 16, device.dtype)]
    rows = q.transpose(1, 2).to(device.name, device.dtype)
    place = *cache, torch.tensor(lengths, dtype=torch.int32, device=device.name)
    how = {"layer": 0, "scale": module.pattern.HEAD_DIM**-0.5, "head_offset": 0, "splits": splits}
    one, two, again = (forward.decode(rows, *place, launches=launches, **how) for launches in (1, 2, 1))
    assert all(torch.equal(x, y) for x, y in zip(one, again, strict=True))
    assert all(dense.error(x.float(), y.double().cpu()) < device.tolerance for x, y in zip(one, two, strict=True))
    for r, n in enumerate(lengths):
        wanted, _ = dense.attention(q[r : r + 1], k[r : r + 1, :, :n], v[r : r + 1, :, :n], module.dense_mask(1, n))
        assert dense.error(one[0][r, 0], wanted[0, :, 0]) < device.tolerance


@pytest.mark.gpu
def test_the_last_program_merges_the_same_whenever_it_comes(package: Import) -> None:
    """Bit for bit, in many calls at once on two streams, and in many replays of a graph of two calls; over pages, and
    over keys that are one piece."""
    module, page, kept = package("gpu_strided"), 16, 8192
    caches = torch.randn(2, 3 * kept // page, page, 2, 32, device="cuda", dtype=torch.bfloat16)
    table = torch.randperm(3 * kept // page, device="cuda").int().view(3, -1)
    q, lengths = torch.randn(3, 1, 4, 32, device="cuda", dtype=torch.bfloat16), torch.tensor([kept, 1, 77]).int().cuda()

    k, v = torch.randn(2, 3, 2, kept, 32, device="cuda", dtype=torch.bfloat16)

    forward = importlib.import_module("gpu_strided.launch.forward")
    how = {"layer": 0, "scale": 0.2, "head_offset": 0, "splits": (5, 2)}

    def step() -> list[torch.Tensor]:
        one_piece = module.attention(q.transpose(1, 2), k, v, q_start=kept - 1)
        shared = forward.decode(q, *caches, table, lengths, **how)
        return [*module.decode(q, *caches, table, lengths, return_lse=True), one_piece, *shared]

    wanted = [x.clone() for x in step()]
    assert all(x.isfinite().all() for x in wanted)
    torch.cuda.synchronize()
    sides, found = [torch.cuda.Stream() for _ in range(2)], []
    for _ in range(200):
        for side in sides:
            with torch.cuda.stream(side):
                found.append(step())
    torch.cuda.synchronize()
    assert all(torch.equal(x, y) for each in found for x, y in zip(each, wanted, strict=True))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = [step(), step()]
    for _ in range(100):
        for x in (x for each in captured for x in each):
            x.fill_(torch.nan)
        graph.replay()
        assert all(torch.equal(x, y) for each in captured for x, y in zip(each, wanted, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "family"), [("gpu_strided", "auto"), ("gpu_wide", "gluon")])
def test_training_in_a_graph(name: str, family: str, package: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward of a replay, from what then stands in the inputs, are those of calls; nothing is kept of one
    launch that a later one would need."""
    module = package(name)
    monkeypatch.setenv("PATTERNCC_KERNELS", family)  # Gluon where it can be had
    shapes = [(2, n, 300, module.PATTERN["head_dim"]) for n in (4, 2, 2)]
    q, k, v = (torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for shape in shapes)
    dout = torch.randn_like(q)

    def step() -> list[torch.Tensor]:
        out = module.attention(q, k, v)
        return [out.detach(), *torch.autograd.grad(out, (q, k, v), dout)]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for _ in range(2):
        with torch.no_grad():
            for x in (q, k, v, dout):
                x.normal_()
        for x in captured:
            x.fill_(torch.nan)
        graph.replay()
        replayed = [x.clone() for x in captured]
        assert all(torch.equal(x, y) and x.isfinite().all() for x, y in zip(replayed, step(), strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["gpu_strided", "gpu_drawn"])
def test_a_graph_outlives_the_tables_of_other_lengths(name: str, package: Import) -> None:
    """What the captured calls read is not freed, though so many other lengths come that nothing remembers it."""
    module = package(name)
    arrays = importlib.import_module(f"{name}.launch.arrays")
    items = importlib.import_module(f"{name}.launch.items")
    shapes = [(1, n, 300, 32) for n in (4, 2, 2)]
    q, k, v = (torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for shape in shapes)
    dout = torch.randn_like(q)

    def step() -> list[torch.Tensor]:
        out = module.attention(q, k, v)
        return [out.detach(), *torch.autograd.grad(out, (q, k, v), dout)]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    wanted = [x.clone() for x in step()]
    importlib.import_module(f"{name}.api.again")._recipes.clear()
    arrays.class_tables.cache_clear()
    items.work.cache_clear()
    gc.collect()
    held = [
        torch.full((1 << 16,), 1 << 30, dtype=torch.int32, device="cuda") for _ in range(64)
    ]  # freed memory is taken
    torch.cuda.synchronize()
    for x in captured:
        x.fill_(torch.nan)
    graph.replay()
    assert len(held) == 64 and all(torch.equal(x, y) for x, y in zip(captured, wanted, strict=True))


@pytest.mark.gpu
def test_inference_in_a_graph(package: Import) -> None:
    module = package("gpu_strided")
    q, k, v = (torch.randn(2, n, 300, 32, device="cuda", dtype=torch.bfloat16) for n in (4, 2, 2))
    module.attention(q, k, v)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = module.attention(q, k, v)
    q.normal_()
    out.fill_(torch.nan)
    graph.replay()
    assert torch.equal(out.clone(), module.attention(q, k, v)) and out.isfinite().all()


@pytest.mark.gpu
def test_a_second_launch_is_like_the_first(package: Import) -> None:
    """Triton makes the first one; later ones hand on addresses and numbers alone, of this length and of others, on this
    stream and on others."""
    module = package("gpu_strided")
    q, k, v = (torch.randn(2, n, 300, 32, device="cuda", dtype=torch.bfloat16) for n in (4, 2, 2))
    first, second = module.attention(q, k, v), module.attention(q, k, v)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        third = module.attention(q, k, v)
    torch.cuda.current_stream().wait_stream(side)
    assert torch.equal(first, second) and torch.equal(first, third)
    wide = torch.randn(2 * 4 * 211 * 32 + 1, device="cuda", dtype=torch.bfloat16)
    shifted = wide[1:].view(2, 4, 211, 32)  # not at an address that is a multiple of 16
    part = [x[:, :, :211].contiguous() for x in (k, v)]
    assert torch.equal(module.attention(shifted, *part), module.attention(shifted.clone(), *part))
