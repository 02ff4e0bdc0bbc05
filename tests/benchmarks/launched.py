"""A process on the stub of a GPU: python launched.py PACKAGES BOXED [trains]; prints as JSON how launches are made and
what each call of a package costs Python, in function calls, which are the same on every machine."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import triton
from triton.backends.nvidia.driver import CudaLauncher

NAME = "bench_toy"
GIVEN: list[tuple[Any, ...]] = []  # of each launch: grid and stream, then the kernel's arguments
made = CudaLauncher.__init__


def watched(self: CudaLauncher, *given: Any) -> None:
    """A launcher whose last step, into C, is seen: whoever takes it."""
    made(self, *given)
    launch, count = self.launch, 15 if hasattr(self, "kernel_signature") else 13  # of what stands before arguments

    def seen(*given: Any) -> None:
        GIVEN.append(given[:4] + (given[count] if len(given) == count + 1 else given[count:]))
        launch(*given)

    self.launch = seen


def addressed(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Addresses of tensors and descriptors, and what the latter know beside."""
    found: list[Any] = []
    for x in given:
        if hasattr(x, "base") and hasattr(x, "strides"):
            found += x.base.data_ptr(), tuple(x.shape), tuple(x.strides)
        else:
            found.append(x.data_ptr() if isinstance(x, torch.Tensor) else x)
    return tuple(found)


def is_tritons(given: tuple[Any, ...]) -> bool:
    """Whether Triton handed on the arguments: then pointers are tensors."""
    return any(isinstance(x, torch.Tensor) for x in given)


def calls_of(call: Callable[[], object]) -> int:
    """Functions of Python and of C that a call enters, once it has been made before."""
    for _ in range(3):
        call()
    count = 0

    def seen(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


def kinds(package: ModuleType) -> dict[str, bool]:
    """Whether a launch is Triton's own, of launches that are alike and of those that are not."""
    module, requests = (importlib.import_module(f"{NAME}.launch.{part}") for part in ("forward", "requests"))
    q, k, v, out = torch.zeros(2, 4, 48, 16), *torch.zeros(2, 2, 2, 48, 16), torch.zeros(2, 4, 48, 16)
    lse, wide = torch.zeros(2, 4, 48), torch.zeros(2 * 4 * 48 * 16 + 1)
    shifted = wide[1:].view(q.shape)

    def forward(q: torch.Tensor, tokens: int = 48, stretched: int = 1) -> tuple[Any, ...]:
        strides = [stride for x in (q, k, v, out) for stride in x.stride()[:3]]
        strides[0] *= stretched
        found = requests.Requests(2, tokens, tokens)
        module._forward(q, k, v, out, lse, strides, lse.stride(0), found, 0, 1.0, 0, None)
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


def launches(call: Callable[[], object]) -> list[tuple[Any, ...]]:
    GIVEN.clear()
    call()
    return [addressed(given) for given in GIVEN]


def are_alike(recipes: dict, call: Callable[[], object], other: Callable[[], object] | None = None) -> bool:
    """Whether the first call leaves a recipe, and the second launches the same; but for addresses, of which one stands
    for one."""
    before = len(recipes)
    first, second = launches(call), launches(other or call)
    pairs = [pair for one, two in zip(first, second, strict=True) for pair in zip(one, two, strict=True)]
    others = {pair for pair in pairs if pair[0] != pair[1]}
    one_to_one = len({x for x, _ in others}) == len({y for _, y in others}) == len(others)
    are_addresses = all(type(x) is int and min(x, y) > 1 << 32 for x, y in others)
    return len(first) > 0 and one_to_one and are_addresses and len(recipes) == before + 1


def again(package: ModuleType) -> dict[str, bool]:
    """Whether a second call launches what the first one did, with memory of its own."""
    recipes = importlib.import_module(f"{NAME}.api.again")._recipes
    q, k, v = torch.randn(2, 4, 48, 16), *torch.randn(2, 2, 2, 48, 16)
    token, caches = torch.zeros(2, 1, 4, 16), torch.zeros(2, 600, 16, 2, 16)
    table, lengths = torch.arange(600, dtype=torch.int32).view(2, 300), torch.tensor([4000, 3], dtype=torch.int32)
    found: dict[str, bool] = {}
    alike = partial(are_alike, recipes)
    with torch.no_grad():
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
        before = len(recipes)
        for changed in ({"layer": True}, {"scale": torch.tensor(0.5)}, {"layer": 0.0}):
            with suppress(TypeError):
                package.attention(q, k, v, **changed)
        package.attention(q, k, v, scale=-0.5)  # of a negated copy
        package.attention(q.repeat_interleave(2, 3)[..., ::2], k, v)
        package.decode(token, *caches, table, lengths.repeat_interleave(2)[::2])
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
    return found


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
        found["descriptors"] = sum(isinstance(x, tuple) for x in launches(lambda: package.attention(q, k, v))[0]) == 10
        recipes.clear()
        two = partial(package.attention, q, k, v), partial(package.attention, laid, k, v)
        found["other strides"] = are_alike(recipes, *two)
        recipes.clear()
        two = partial(package.attention, q, k, v), partial(package.attention, q, k.clone(), v.clone())
        found["other keys and values"] = are_alike(recipes, *two)
    if trains:
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        out, gradients = package.attention(*leaves), torch.randn(2, 2, 2, 5120, 64).half()
        two = (partial(torch.autograd.grad, out, leaves, x, retain_graph=True) for x in gradients)
        found["backward"] = are_alike(recipes, *two)
        found["its descriptors"] = sum(isinstance(x, tuple) for given in GIVEN for x in addressed(given)) > 20
    del os.environ["PATTERNCC_KERNELS"]
    return found


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
    context = SimpleNamespace(place=(0, 1.0, 0, 0, 0), saved_tensors=(q, k, v, out.detach(), torch.zeros(1, 4, 64)))
    gradient = torch.zeros_like(q)
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
