"""What Megatron says of a mask: it must be what the pattern takes the place of, since nobody reads it afterwards."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from patterncc.errors import UsageError
from patterncc.integrations.place import place

KINDS = {  # by whether the pattern is causal, and sequences are packed: the names of Megatron's AttnMaskType
    (True, False): ("causal", "causal_bottom_right"),
    (True, True): ("causal", "causal_bottom_right", "padding_causal"),
    (False, False): ("no_mask", "padding"),
    (False, True): ("no_mask", "padding"),
}
# masks that were looked at, by the layer before, and starts of packed sequences → how often they were written to by
# then, and what was seen: the keys, or the length of the longest sequence
_CHECKED: WeakIdKeyDictionary = WeakIdKeyDictionary()
_LONGEST: Any = WeakIdKeyDictionary()  # to the type checker its `get` gives None


def check_kind(package: ModuleType, kind: Any, *, is_later: bool, is_packed: bool) -> None:
    """Raise UsageError where Megatron's AttnMaskType is not what the pattern is: causal, or not. Megatron says no_mask
    of queries that come after the keys of a static cache (`is_later`): all of these came before."""
    causal = package.PATTERN["causal"]
    if kind is None or kind.name in KINDS[causal, is_packed] or (causal and is_later and kind.name == "no_mask"):
        return
    words, taken = "causal" if causal else "not causal", " or ".join(KINDS[causal, is_packed])
    raise UsageError(
        f"the layer's attn_mask_type is {kind.name}; the pattern {package.PATTERN['name']} is {words}"
        f"{place(package, 'causal')}, and takes {taken}",
        "pack sequences (thd) in place of padding them" if "padding" in kind.name else None,
    )


def check_mask(package: ModuleType, mask: Tensor | None, rows: Tensor, keys: int) -> None:
    """Raise UsageError for a mask [batch, 1, queries, keys], true where nothing is attended, that is more than
    causality: it would be left out in silence. `rows` are the positions of the queries. Looked at once a mask."""
    if mask is None or _CHECKED.get(mask) == (_writes(mask), keys):
        return
    if mask.is_cuda and torch.cuda.is_current_stream_capturing():  # nothing can be waited for; the call before looked
        return
    name = package.PATTERN["name"]
    if mask.shape[-2:] != (len(rows), keys):
        raise UsageError(
            f"attention_mask is {list(mask.shape)} for {len(rows)} queries and {keys} keys", "pass None for it"
        )
    later = torch.arange(keys, device=mask.device) > rows.to(mask.device)[:, None]
    own = later if package.PATTERN["causal"] else torch.zeros_like(later)
    if bool((mask.bool() != own).any()):
        raise UsageError(
            f"attention_mask is not {'causality' if package.PATTERN['causal'] else 'empty'} alone: it hides padding or "
            f"other documents, which the pattern {name} does not know of",
            "pack sequences (thd), or pass None to attend as the pattern says",
        )
    _CHECKED[mask] = _writes(mask), keys


def longest(starts: Tensor) -> int:
    """The length of the longest of some packed sequences; waits for the device, once a batch."""
    writes, known = _LONGEST.get(starts, (None, 0))
    if writes is None or writes != _writes(starts):
        known = int((starts[1:] - starts[:-1]).max()) if len(starts) > 1 else 0
        _LONGEST[starts] = _writes(starts), known
    return known


def _writes(x: Tensor) -> int:
    """How often a tensor was written to; tensors made in inference mode do not count it."""
    return -1 if x.is_inference() else x._version
