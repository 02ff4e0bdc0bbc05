"""A process on the stub of a GPU: python launched.py PACKAGES BOXED [trains]; prints as JSON how launches are made and
what each call of a package costs Python, in function calls, which are the same on every machine."""

from __future__ import annotations

import importlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import triton
from triton.backends.nvidia.driver import CudaLauncher

from tests.benchmarks.launched_drawn import drawn
from tests.benchmarks.launched_packed import packed, sunk
from tests.benchmarks.seen import (
    GIVEN,
    addressed,
    are_alike,
    are_tritons,
    calls_of,
    is_tritons,
    launches,
    operators_of,
    twice,
    watched,
)

NAME = "bench_toy"


def kinds(package: ModuleType) -> dict[str, bool]:
    """Whether a launch is Triton's own, of launches that are alike and of those that are not."""
    module, requests = (importlib.import_module(f"{NAME}.launch.{part}") for part in ("forward", "requests"))
    q, k, v, out = torch.zeros(2, 4, 48, 16), *torch.zeros(2, 2, 2, 48, 16), torch.zeros(2, 4, 48, 16)
    lse, wide = torch.zeros(2, 4, 48), torch.zeros(2 * 4 * 48 * 16 + 1)
    shifted = wide[1:].view(q.shape)

    def forward(q: torch.Tensor, tokens: int = 48, stretched: int = 1) -> tuple[Any, ...]:
        strides = [stride for x in (q, k, v) for stride in x.stride()[:3]]
        strides[0] *= stretched
        found = requests.Requests(2, tokens, tokens)
        module._forward(q, k, v, out, lse, strides, found, 0, 1.0, 0, None)
        return GIVEN[-1]

    first, again = forward(q), forward(q)
    kinds = {"first": is_tritons(first), "again": is_tritons(again), "the same": addressed(first) == again}
    kinds |= {"another length": is_tritons(forward(q, 33)), "not aligned": is_tritons(forward(shifted))}
    kinds |= {"again after it": is_tritons(forward(q)), "other numbers": addressed(first) == forward(q, 47)}
    kinds["more than 32 bits"] = is_tritons(forward(q, stretched=1 << 30))
    hook = lambda _: None  # noqa: E731
    triton.knobs.runtime.launch_enter_hook.add(hook)
    kinds["watched"] = is_tritons(forward(q))
    triton.knobs.runtime.launch_enter_hook.remove(hook)
    return kinds | {"unwatched": is_tritons(forward(q))}


def again(package: ModuleType) -> dict[str, bool]:
    """Whether a second call launches what the first one did, with memory of its own."""
    recipes = importlib.import_module(f"{NAME}.api.again")._recipes
    q, k, v = torch.randn(2, 4, 48, 16), *torch.randn(2, 2, 2, 48, 16)
    token, caches = torch.zeros(2, 1, 4, 16), torch.zeros(2, 600, 16, 2, 16)
    table, lengths = torch.arange(600, dtype=torch.int32).view(2, 300), torch.tensor([4000, 3], dtype=torch.int32)
    found: dict[str, bool] = {}
    alike = partial(are_alike, recipes)
    with torch.no_grad():
        kept = [package.attention(q, k, v) is None or len(recipes) for _ in range(3)]
        found["kept when it comes again"] = kept == [0, 1, 1]
        recipes.clear()
        found["attention"] = alike(lambda: package.attention(q, k, v))
        found["places"] = alike(lambda: package.attention(q, k, v, q_start=5, kv_start=16, return_lse=True))
        found["decode"] = alike(lambda: package.decode(token, *caches, table, lengths))
        rows, starts = torch.randn(5, 4, 16), torch.tensor([0, 3, 4], dtype=torch.int32)  # the last is of no request
        found["paged"] = alike(lambda: package.attention_paged(rows, *caches, table, lengths, starts, max_q_len=3))
        found["paged, one program"] = alike(
            lambda: package.attention_paged(rows, *caches, table[:, :9], lengths, starts)
        )
        scaled = partial(package.attention, q, k, v, scale=0.25), partial(package.attention, q, k, v, scale=0.5)
        found["another scale"] = alike(*scaled)
        recipes.clear()
        laid = q.transpose(1, 2).contiguous().transpose(1, 2)
        found["other strides"] = alike(lambda: package.attention(q, k, v), lambda: package.attention(laid, k, v))
        recipes.clear()
        same = partial(package.attention, q, k, k), partial(package.attention, q, v, v)
        found["one tensor twice"] = alike(*same)  # in another call of these shapes they are two
        found["after one tensor twice"] = alike(lambda: package.attention(q, k, v))
        before = len(recipes)
        for changed in ({"layer": True}, {"scale": torch.tensor(0.5)}, {"layer": 0.0}):
            with suppress(TypeError):
                twice(package.attention, q, k, v, **changed)
        twice(package.attention, q, k, v, scale=-0.5)  # of a negated copy
        twice(package.attention, q.repeat_interleave(2, 3)[..., ::2], k, v)
        twice(package.decode, token, *caches, table, lengths.repeat_interleave(2)[::2])
        found["nothing kept of others"] = len(recipes) == before
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    recipes.clear()
    found["training"] = alike(lambda: package.attention(*leaves))
    out, lse = package.attention(*leaves, return_lse=True)
    of_out, of_lse = torch.randn(2, 2, 4, 48, 16), torch.randn(2, 2, 4, 48)
    backward = [partial(torch.autograd.grad, out, leaves, of_out[n], retain_graph=True) for n in range(2)]
    found["backward"] = alike(*backward)
    pairs = zip(of_out, of_lse, strict=True)
    both = [partial(torch.autograd.grad, (out, lse), leaves, pair, retain_graph=True) for pair in pairs]
    found["backward, and of the LSE"] = alike(*both)
    pinned = importlib.import_module(f"{NAME}.launch.graphs")._pinned
    found["nothing pinned"] = not pinned
    torch.cuda.is_current_stream_capturing = lambda: True
    backward[0]()
    torch.cuda.is_current_stream_capturing = lambda: False
    found["pinned in a graph"] = len(pinned) == 1 and next(iter(pinned.values())) in recipes.values()
    return found | packed(package, recipes) | sunk(package, recipes)


def boxed(name: str, trains: bool) -> dict[str, bool]:
    """The same for launches with TMA descriptors, of a package that the Hopper kernels take; with its backward, whose
    kernels take long to compile, where that is asked for."""
    os.environ["PATTERNCC_KERNELS"] = "gluon"
    package, found = importlib.import_module(name), {}
    recipes = importlib.import_module(f"{name}.api.again")._recipes
    q, k, v = torch.randn(2, 2, 5120, 64).half(), *torch.randn(2, 2, 1, 5120, 64).half()
    laid = q.transpose(1, 2).contiguous().transpose(1, 2)
    with torch.no_grad():
        found["attention"] = are_alike(recipes, lambda: package.attention(q, k, v))
        found["descriptors"] = sum(isinstance(x, bytes) for x in launches(lambda: package.attention(q, k, v))[0]) == 7
        recipes.clear()
        two = partial(package.attention, q, k, v), partial(package.attention, laid, k, v)
        found["other strides"] = are_alike(recipes, *two)
        recipes.clear()
        two = partial(package.attention, q, k, v), partial(package.attention, q, k.clone(), v.clone())
        found["other keys and values"] = are_alike(recipes, *two)
        recipes.clear()
        two = [partial(package.attention, q, k, v, layer=layer) for layer in (0, 2)]
        found["a layer alike"] = are_alike(recipes, *two)
        twice(package.attention, q, k, v, layer=1)
        found["a dense layer apart"] = len(recipes) == 2
        recipes.clear()
        starts = torch.tensor([3, 3000, 5100], dtype=torch.int32)  # rows before and behind are cleared
        rows, keys, values = (x[0].transpose(0, 1).contiguous() for x in (q, k, v))
        two = [partial(package.attention_varlen, rows, x, values, starts, starts, 2997, 2997) for x in (keys, keys + 1)]
        found["varlen"] = are_alike(recipes, *two)
        paged = [x.view(320, 16, 1, 64) for x in (keys, values)]
        table = torch.arange(320, dtype=torch.int32).view(2, 160)
        lengths = torch.tensor([2500, 2200], dtype=torch.int32)
        two = [partial(package.attention_paged, rows, *x, table, lengths, starts) for x in (paged, paged[::-1])]
        found["paged"] = are_alike(recipes, *two)
        found |= encodings(name, package)
        found["in threads"] = threads(package)
        found |= drawn(package, kinds=24, count=120, seed=7)
    if trains:
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        out, gradients = package.attention(*leaves), torch.randn(2, 2, 2, 5120, 64).half()
        two = (partial(torch.autograd.grad, out, leaves, x, retain_graph=True) for x in gradients)
        found["backward"] = are_alike(recipes, *two)
        found["its descriptors"] = sum(isinstance(x, bytes) for given in GIVEN for x in addressed(given)) > 10
        leaves = [x.requires_grad_() for x in (rows, keys, values)]
        out, gradients = (
            package.attention_varlen(*leaves, starts, starts, 2997, 2997),
            torch.randn(2, 5120, 2, 64).half(),
        )
        two = (partial(torch.autograd.grad, out, leaves, x, retain_graph=True) for x in gradients)
        found["varlen backward"] = are_alike(recipes, *two)
    del os.environ["PATTERNCC_KERNELS"]
    return found


def encodings(name: str, package: ModuleType) -> dict[str, bool]:
    """Whether descriptors are Triton's own, and encoded only for an address, shape and strides that were not there."""
    descriptors = importlib.import_module(f"{name}.launch.descriptors")
    utils, count = triton.runtime.driver.active.utils, 0
    fill = next(x for x in ("fill_tma_descriptor_tiled", "fill_tma_descriptor") if hasattr(utils, x))
    encode = getattr(utils, fill)

    def counted(*given: Any) -> Any:
        nonlocal count
        count += 1
        return encode(*given)

    def encoded(*given: torch.Tensor) -> tuple[bool, int]:
        nonlocal count
        count = 0
        call = partial(package.attention, *given)
        launches(call)
        taken = count
        return are_tritons(call, *given), taken

    setattr(utils, fill, counted)
    memory = torch.randn(2, 2, 5120, 256).half()
    q, (k, v) = memory[..., :64], (memory[:, :1, :, at : at + 64] for at in (64, 128))
    thrice = [encoded(q, k, v) for _ in range(3)]  # two calls each: the second leaves a recipe
    found = {"encoded once": thrice[1:] == [(True, 0)] * 2, "other keys": encoded(q, memory[:, 1:, :, 64:128], v)[0]}
    short = [x[:, :, :5000] for x in (q, k, v)]  # at the same addresses
    laid = [x.as_strided(x.shape, [*x.stride()[:2], 192, 1]) for x in (q, k, v)]
    for what, given in (("shorter", short), ("laid otherwise", laid)):
        found[what] = [encoded(*given) for _ in range(2)][1] == (True, 0) and count > 0
    descriptors.encoded.clear()
    most, descriptors.MOST = descriptors.MOST, 2  # fewer are kept than a launch has
    found["few"] = all(encoded(*given)[0] for given in (short, laid, [q, k, v]) for _ in range(2))
    found["no more are kept"], descriptors.MOST = len(descriptors.encoded) <= 2, most
    setattr(utils, fill, encode)
    return found


def threads(package: ModuleType) -> bool:
    """Whether each launch of several threads has descriptors of one of them."""
    many = [(torch.randn(2, 2, 5120, 64).half(), *torch.randn(2, 2, 1, 5120, 64).half()) for _ in range(4)]
    package.attention(*many[0])
    GIVEN.clear()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: package.attention(*many[n % 4]), range(80)))
    own = {tuple(x.data_ptr() for x in given) for given in many}
    return {addressed(given[4:])[0::10][:3] for given in GIVEN} == own and len(GIVEN) == 80


def counts(package: ModuleType) -> dict[str, int]:
    q, k, v = torch.zeros(1, 4, 64, 16), *torch.zeros(2, 1, 2, 64, 16)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    out = package.attention(*leaves)
    token, caches = torch.zeros(2, 1, 4, 16), torch.zeros(2, 600, 16, 2, 16)
    table, lengths = torch.arange(600, dtype=torch.int32).view(2, 300), torch.tensor([4000, 3], dtype=torch.int32)
    starts = torch.tensor([0, 64], dtype=torch.int32)
    packed = [x[0].transpose(0, 1).contiguous() for x in (q, k, v)]
    with torch.no_grad():
        found = {
            "attention": calls_of(lambda: package.attention(q, k, v)),
            "attention_varlen": calls_of(lambda: package.attention_varlen(*packed, starts, starts, 64, 64)),
            "decode": calls_of(lambda: package.decode(token, *caches, table, lengths)),
        }
    found["forward for training"] = calls_of(lambda: package.attention(*leaves))
    backward = importlib.import_module(f"{NAME}.api.ops")._differentiate
    context = SimpleNamespace(
        place=(0, 1.0, 0, 0, 0), saved_tensors=(q, k, v, out.detach(), torch.zeros(1, 4, 64), None)
    )
    gradient = torch.zeros_like(q)
    cache, newest = package.KVCache(2, device="cuda"), [torch.zeros(2, n, 1, 16) for n in (4, 2, 2)]
    found["KVCache.step"] = calls_of(lambda: cache.step(*newest))
    found["its launches"] = len(launches(lambda: cache.step(*newest)))
    found["its operators"] = operators_of(lambda: cache.step(*newest))
    with torch.no_grad():  # as autograd's thread, which no profile sees, calls it
        found["backward"] = calls_of(lambda: backward(context, gradient, None))
    return found


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    CudaLauncher.__init__ = watched
    package = importlib.import_module(NAME)
    results: dict[str, object] = {"boxed": boxed(sys.argv[2], trains="trains" in sys.argv[3:])}
    if "trains" not in sys.argv[3:]:
        results |= {"kinds": kinds(package), "again": again(package), "counts": counts(package)}
    print(json.dumps(results))
