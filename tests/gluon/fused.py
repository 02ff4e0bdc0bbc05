"""The fused Hopper backward of a package, run on numpy with the arguments that the launcher would give it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from tests.gluon import emulate, hopper
from tests.gluon.values import BFLOAT16
from tests.kernels.held import Held, held, placed

NAME = "attn_bwd_fused_hopper"
ENDS = "attn_bwd_fused_begin", "attn_bwd_fused_end"


@cache
def made(text: str) -> tuple[Held, Any, tuple[Any, ...]]:
    """A pattern's package, its launcher and its kernels on the emulated language."""
    of = held(text)
    launcher = of.part("launch.hopper_fused")
    return of, launcher, kernels_of(launcher)


def kernels_of(launcher: ModuleType, changed: tuple[str, str, str] | None = None) -> tuple[Any, ...]:
    """The fused kernel, and those before and behind it. `changed`: as `hopper.kernel_of` takes it."""
    return (
        hopper.kernel_of(launcher, name=NAME, changed=changed),
        *(hopper.kernel_of(launcher, name=name) for name in ENDS),
    )


@contextmanager
def launched(
    kernels: Sequence[Any], launcher: ModuleType, *, programs: int = 3, seed: int = 0, **changed: Any
) -> Iterator[list[dict[str, Any]]]:
    """While it lasts, the launcher's kernels are these; yields what the fused one was given in each launch."""
    found: list[dict[str, Any]] = []

    def launch(_most: int, given: dict[str, Any]) -> None:
        given = given | changed
        found.append(given)
        taken = {name: hopper.emulated(x, launcher.hopper) for name, x in given.items()}
        taken["dq_sums"] = emulate.pointer(given["dq_sums"].view(-1).numpy())
        for name in ("dk", "dv"):
            taken[name] = emulate.pointer(hopper.flat(given[name])[0], BFLOAT16)
        emulate.launch(kernels[0], (min(programs, given["total"]),), taken, seed)

    def plain(_device: Any, _dtype: Any = None, **constants: int) -> Any:
        def run(kernel: Any, grid: Any, tensors: Sequence[Tensor], numbers: Sequence[float]) -> None:
            own = kernels[1 if "begin" in kernel.fn.__name__ else 2]
            flat = [hopper.flat(x)[0] for x in tensors]
            names = [name for name in kernel.arg_names if name not in constants]
            emulate.launch(own, grid, dict(zip(names, [*flat, *numbers], strict=True)) | constants, seed)

        return run

    with mock.patch.object(launcher, "launch", launch), mock.patch.object(launcher, "_launch", plain):
        yield found


def differentiate(
    launcher: Any,
    kernels: Sequence[Any],
    inputs: Sequence[Tensor],
    sums: tuple[Tensor, Tensor],
    starts: tuple[int, int],
    **more: Any,
) -> tuple[Tensor, ...]:
    """dq, dk and dv of the emulated kernels, from memory full of NaN; inputs: q, k, v, dout. `more`: of `launched`."""
    q, k = inputs[:2]
    grads = [placed(torch.full(x.shape, float("nan"))) for x in inputs[:3]]
    requests = launcher.Requests(q.shape[0], q.shape[2], k.shape[2], *starts)
    assert launcher.IS_WRITTEN_FOR
    with launched(kernels, launcher, **more) as found, hopper.adding_quickly(launcher):
        assert launcher.fill(hopper.told(launcher, inputs, sums, requests), *grads)
    assert len(found) == 1
    return tuple(grads)
