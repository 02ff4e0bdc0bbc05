"""The Hopper kernels of a package, run on numpy with the arguments that the launcher would give them."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch

from . import emulate
from .values import BFLOAT16, FLOAT16, FLOAT32

KINDS = {torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}


FILES = {
    "attn_fwd_hopper": "forward",
    "attn_fwd_wide_hopper": "forward_wide",
    "attn_bwd_dq_hopper": "backward_dq",
    "attn_bwd_dkdv_hopper": "backward_dkdv",
    "attn_bwd_fused_hopper": "backward_fused",
    "attn_bwd_fused_begin": "fused_ends",
    "attn_bwd_fused_end": "fused_ends",
}


def kernel_of(
    launcher: ModuleType,
    version: str = "3.6",
    name: str = "attn_fwd_hopper",
    changed: tuple[str, str, str] | None = None,
) -> Any:
    """The kernel beside a package's launcher, on the emulated language of this version of Triton. `changed`: a module,
    a piece of its text and what takes its place."""
    file = FILES[name]
    folder = Path(launcher.__file__ or "").parents[1]
    if changed is not None:
        module, old, new = changed
        copy = Path(tempfile.mkdtemp(prefix="patterncc-broken-"))
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        text = (copy / f"kernels/hopper/{module}.py").read_text()
        assert text.count(old), f"{module} has no longer what is to be changed"
        (copy / f"kernels/hopper/{module}.py").write_text(text.replace(old, new))
        folder = copy
    package = emulate.load(folder, f"kernels.hopper.{file}", version=version)
    kernels = vars(getattr(package.kernels.hopper, file))
    return next(x for known, x in kernels.items() if known == name or known.startswith(f"{name}_"))


def forward(
    kernel: Any,
    launcher: ModuleType,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    requests: Any,
    *,
    programs: int = 3,
    seed: int = 0,
    layer: int = 0,
    scale: float | None = None,
    head_offset: int = 0,
    **changed: Any,
) -> None:
    """Write out and lse, float32 in the place of bfloat16, as the launcher's arguments say; `changed` replaces some."""
    scale = launcher.HEAD_DIM**-0.5 if scale is None else scale
    heads = layer, head_offset, q.shape[1]
    launcher.clear(out, lse, requests)
    _, given = launcher.arguments(launcher.Rows(q, k, v, out, lse, requests, heads, scale))
    programs = min(programs, given["total"])
    given["taken"] = torch.zeros(1, dtype=torch.int32)
    taken = {name: emulated(x, launcher) for name, x in (given | changed).items()}
    emulate.launch(kernel, (programs,), taken, seed)


def dq(
    kernel: Any,
    launcher: ModuleType,
    inputs: Sequence[torch.Tensor],
    dq: torch.Tensor,
    sums: tuple[torch.Tensor, torch.Tensor],
    requests: Any,
    *,
    programs: int = 3,
    seed: int = 0,
) -> None:
    """Write dq, like `inputs` (q, k, v and dout), by its kernel alone. `sums`: those of `backward`."""
    _, given = launcher.dq_arguments(told(launcher, inputs, sums, requests), dq)
    given["taken"] = torch.zeros(1, dtype=torch.int32)
    taken = {name: emulated(x, launcher.hopper) for name, x in given.items()}
    emulate.launch(kernel, (min(programs, given["total"]),), taken, seed)


@contextmanager
def launched(
    kernels: tuple[Any, Any],
    launcher: ModuleType,
    are_sums: Callable[[torch.Tensor], bool],
    *,
    programs: int = 3,
    seed: int = 0,
    **changed: Any,
) -> Iterator[list[Any]]:
    """While it lasts, the launcher's kernels for dQ and for dK and dV are these; yields those that were launched.
    `are_sums`: whether dk and dv are float32 on a GPU too. `changed` replaces some arguments."""
    found: list[Any] = []

    def run(kernel: Any) -> Any:
        def launch(_most: int, given: dict[str, Any]) -> None:
            found.append(kernel)
            given["taken"] = torch.zeros(1, dtype=torch.int32)
            own = {name: x for name, x in changed.items() if name in given}
            taken = {name: emulated(x, launcher.hopper) for name, x in (given | own).items()}
            for name in {"dk", "dv"} & set(given):
                kind = FLOAT32 if are_sums(given[name]) else BFLOAT16
                taken[name] = emulate.pointer(flat(given[name])[0], kind)
            emulate.launch(kernel, (min(programs, given["total"]),), taken, seed)

        return launch

    dq, dkdv = kernels
    with mock.patch.object(launcher, "launch_dq", run(dq)), mock.patch.object(launcher, "launch_dkdv", run(dkdv)):
        yield found


def backward(
    kernels: tuple[Any, Any],
    launcher: ModuleType,
    inputs: Sequence[torch.Tensor],
    grads: Sequence[torch.Tensor],
    sums: tuple[torch.Tensor, torch.Tensor],
    requests: Any,
    **more: Any,
) -> int:
    """Fill `grads`, dq, dk and dv like `inputs` (q, k, v and dout), with the kernels for dQ and for dK and dV; how many
    launches there were. `sums`: what each row's weights need of its LSE, and delta."""
    given = told(launcher, inputs, sums, requests)
    with (
        launched(kernels, launcher, lambda x: all(x is not grad for grad in grads), **more) as found,
        adding_quickly(launcher),
    ):
        launcher.fill_dq(given, grads[0])
        launcher.fill_dkdv(given, *grads[1:])
    return len(found)


def adding_quickly(launcher: ModuleType) -> Any:
    """While it lasts, parts of columns are added by torch, and not by the kernel, whose interpreter takes long."""
    return mock.patch.object(sys.modules[launcher.finish.__module__], "add_parts", add_parts)


def add_parts(parts: torch.Tensor, work: Any, sums: list[torch.Tensor], requests: Any) -> None:
    """Add what several items have of a column, as `backward_sum.py` does."""
    block = parts.shape[3]
    for kv, j, first, count in work.columns.tolist():
        rows = slice(j * block - requests.kv_start, min((j + 1) * block - requests.kv_start, requests.kv_len))
        for n, out in enumerate(sums):
            out[:, kv, rows] = parts[:, first : first + count, n].sum(1)[:, : rows.stop - rows.start]


def told(
    launcher: ModuleType, inputs: Sequence[torch.Tensor], sums: tuple[torch.Tensor, torch.Tensor], requests: Any
) -> Any:
    """What launchers of a backward pass of all heads are told. inputs: q, k, v, dout; `sums`: those of `backward`."""
    return launcher.Backward(*inputs, *sums, requests, (0, 0, inputs[0].shape[1]), launcher.HEAD_DIM**-0.5)


def emulated(x: Any, launcher: ModuleType) -> Any:
    if isinstance(x, launcher.Boxes):
        tensor = x.tensor.as_strided(x.shape, x.strides)
        return emulate.boxes(tensor.numpy(), tuple(x.box), FLOAT32 if x.tensor.dim() == 1 else BFLOAT16)
    if isinstance(x, torch.Tensor):
        return emulate.pointer(*flat(x))
    return x


def flat(x: torch.Tensor) -> tuple[np.ndarray, Any]:
    """The memory from a tensor's first number on: what a pointer to it may reach."""
    size = 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True)) if x.numel() else 0
    return x.as_strided((size,), (1,)).numpy(), BFLOAT16 if x.dtype == torch.float32 and x.dim() == 4 else None
