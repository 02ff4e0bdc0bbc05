"""Pages of a paged cache that no later query reads: an engine may take them back while the sequence goes on."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks.shapes import check_layer, check_length
from ..checks.values import whole
from ..pattern import CAUSAL, CLASS_OF
from .lifetime import FOREVER, last_query_of_page


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
    return dead_from(pages, page_size, layer=layer) <= length


def dead_from(pages: int, page_size: int, *, layer: int = 0) -> Tensor:
    """The length from which on each of the first pages of a sequence is dead: int64 [pages], on the CPU; beyond all
    lengths where it never dies.

    Page p is dead_pages(length, page_size)[p] exactly when length is this or more: it is full, and the last query that
    may attend any of its tokens is behind.
    """
    if not CAUSAL:
        return torch.full((pages,), FOREVER, dtype=torch.int64, device="cpu")
    last = torch.stack([last_query_of_page(klass, pages, page_size) for klass in sorted(set(CLASS_OF[layer]))]).amax(0)
    full = torch.arange(1, pages + 1, device="cpu") * page_size
    return torch.maximum(last + 1, full)
