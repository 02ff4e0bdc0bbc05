"""Memory for what attention gives: as wide as values are, and laid out as queries are."""

from __future__ import annotations

import torch
from torch import Tensor

from ..pattern import HEAD_DIM, V_HEAD_DIM

WIDEST = max(HEAD_DIM, V_HEAD_DIM)  # what tiles must have room for


def like_output(q: Tensor) -> Tensor:
    """Memory [..., V_HEAD_DIM] for the output of queries [..., HEAD_DIM], its dimensions in their order in memory."""
    if V_HEAD_DIM == HEAD_DIM:
        return torch.empty_like(q)
    strides = torch.empty_like(q, device="meta").stride()[:-1]
    return q.new_empty_strided((*q.shape[:-1], V_HEAD_DIM), [n // HEAD_DIM * V_HEAD_DIM for n in strides] + [1])
