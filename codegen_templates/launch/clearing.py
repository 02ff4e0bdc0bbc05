"""The launch that clears packed rows of no sequence, for kernels that leave them as they are."""

from __future__ import annotations

from functools import cache

import torch

from .kept import Launch

ROWS = 16  # of a program at a time
PROGRAMS = 16  # for each head: such rows are few, and how many there are is known to the device alone


def clear_rows(x: torch.Tensor, lse: torch.Tensor | None, starts: torch.Tensor) -> None:
    """Write 0 to the rows of x [total, heads, HEAD_DIM] that are of no sequence, and -inf to those of its LSE [heads,
    total]. Sequences begin at `starts` [requests + 1]."""
    from ..kernels.hopper.clear import attn_clear

    numbers = len(starts) - 1, len(x), x.stride(1), x.stride(0), 0 if lse is None else lse.stride(0)
    launch = _launch(x.device, (x.dtype, starts.dtype), lse is not None)
    launch(attn_clear, (PROGRAMS, x.shape[1], 1), (x, lse, starts), numbers)


@cache
def _launch(device: torch.device, _dtypes: tuple[torch.dtype, ...], _has_lse: bool) -> Launch:
    return Launch(device, ROWS=ROWS, num_warps=4)
