"""Pages of a paged cache that no later query reads: an engine may take them back while the sequence goes on."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks.shapes import check_layer, check_length
from ..checks.values import whole
from ..pattern import CAUSAL, CLASS_OF
from .lifetime import last_query


def dead_pages(length: int, page_size: int, *, layer: int = 0) -> Tensor:
    """Which pages of a sequence of `length` tokens are dead: bool [pages], on the CPU.

    Page p holds tokens p * page_size, … It is dead when no query at position `length` or later, of any query head of
    the layer, may attend any of its tokens; a page with room for tokens to come is not. Once dead, a page stays dead.
    Block tables serve all heads of a layer, so a page lives as long as any head needs it; `KVCache` frees more where
    heads differ.
    """
    layer = check_layer(layer)
    check_length(length=length)
    page_size = whole("page_size", page_size, 1)
    pages = -(-int(length) // page_size)
    if not CAUSAL:
        return torch.zeros(pages, dtype=torch.bool, device="cpu")
    u = torch.arange(pages * page_size, device="cpu")
    last = torch.stack([last_query(klass, u) for klass in sorted(set(CLASS_OF[layer]))]).amax(0)
    return ((last < length) & (u < length)).view(pages, page_size).all(1)
