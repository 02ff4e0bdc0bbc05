"""How long a key is needed: the last query that a class lets attend it."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from .layout import mask_rows
from .pattern import BLOCK, CLASSES

NEVER, FOREVER = -1, 1 << 62


def last_query(klass: int, u: Tensor) -> Tensor:
    """The last query token that may attend key token u: NEVER where none may, FOREVER where there is no last one.

    For a causal class. Where the class is KV-monotone, token u is attended by u, u + 1, … up to this one, and by no
    other.
    """
    rules = CLASSES[klass]
    j = u // BLOCK
    last = torch.full_like(u, NEVER)
    for term in rules["terms"]:
        last = torch.maximum(last, _last_of(term, j))
    if rules["mask"] is not None:
        rows = _last_rows(rules["mask"], u.device)
        row = torch.where(j < len(rows), rows[j.clamp(max=len(rows) - 1)], NEVER)
        last = torch.maximum(last, torch.where(row >= j, (row + 1) * BLOCK - 1, NEVER))
    if rules["random"]:
        last = torch.full_like(u, FOREVER)  # any later row may draw the block
    if rules["window"]:
        last = torch.maximum(last, u + rules["window"][0] - 1)
    if rules["sink"]:
        last = torch.where(u < rules["sink"], FOREVER, last)
    return last


def _last_of(term: tuple, j: Tensor) -> Tensor:
    """The last token of the last row that keeps column j by this term."""
    (d_from, d_to, j_from, j_to, i_from, i_to), (every, offset, width, anchor) = term[:6], term[6:]
    last = torch.full_like(j, FOREVER if i_to is None else i_to - 1)
    if d_to is not None:
        last = torch.minimum(last, j + d_to - 1)
    first = (j + max(d_from or 0, 0)).clamp(min=i_from or 0)
    kept = (first <= last) & (j >= (j_from or 0))
    if j_to is not None:
        kept &= j < j_to
    if every > 1 and anchor == "j":
        kept &= (j - offset).remainder(every) < width
    elif every > 1:
        beyond = (last - j - offset).remainder(every) - (width - 1)
        last = torch.where((beyond > 0) & (last < FOREVER), last - beyond, last)
        kept &= first <= last
    token = torch.where(last < FOREVER, (last.clamp(max=FOREVER // BLOCK - 1) + 1) * BLOCK - 1, FOREVER)
    return torch.where(kept, token, NEVER)


@functools.cache
def _last_rows(mask: int, device: torch.device) -> Tensor:
    """The last row in which an explicit mask keeps each column, NEVER where none does: [columns]."""
    kept = mask_rows(mask, device)
    rows = torch.arange(len(kept), device=device)[:, None]
    return torch.where(kept, rows, NEVER).amax(0)
