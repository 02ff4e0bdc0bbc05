"""The Hopper kernels of a package, run on numpy with the arguments that the launcher would give them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from . import emulate
from .values import BFLOAT16, FLOAT16

KINDS = {torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}


def kernel_of(
    launcher: ModuleType,
    version: str = "3.6",
    name: str = "attn_fwd_hopper",
    changed: tuple[str, str, str] | None = None,
) -> Any:
    """The kernel beside a package's launcher, on the emulated language of this version of Triton. `changed`: a module,
    a piece of its text and what takes its place."""
    folder = Path(launcher.__file__ or "").parents[1]
    if changed is not None:
        module, old, new = changed
        copy = Path(tempfile.mkdtemp(prefix="patterncc-broken-"))
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        text = (copy / f"kernels/hopper/{module}.py").read_text()
        assert text.count(old), f"{module} has no longer what is to be changed"
        (copy / f"kernels/hopper/{module}.py").write_text(text.replace(old, new))
        folder = copy
    kernels = vars(emulate.load(folder, "kernels.hopper.forward", version=version).kernels.hopper.forward)
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
    _, given = launcher.arguments(q, k, v, out, lse, requests, heads, scale)
    programs = min(programs, given["total"])
    given["taken"] = torch.zeros(1, dtype=torch.int32)
    taken = {name: _emulated(x, launcher) for name, x in (given | changed).items()}
    emulate.launch(kernel, (programs,), taken, seed)


def _emulated(x: Any, launcher: ModuleType) -> Any:
    if isinstance(x, launcher.Boxes):
        return emulate.boxes(x.tensor.numpy(), (1, 1, x.rows, launcher.CHUNK))
    if isinstance(x, torch.Tensor):
        return emulate.pointer(*_flat(x))
    return x


def _flat(x: torch.Tensor) -> tuple[np.ndarray, Any]:
    """The memory from a tensor's first number on: what a pointer to it may reach."""
    size = 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True)) if x.numel() else 0
    return x.as_strided((size,), (1,)).numpy(), BFLOAT16 if x.dtype == torch.float32 and x.dim() == 4 else None
