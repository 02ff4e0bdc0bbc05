"""A pattern as an attention implementation of transformers: its attention function and, always, its mask function."""

from __future__ import annotations

import functools
import hashlib
import os
from types import ModuleType

from transformers import AttentionInterface, AttentionMaskInterface

from patterncc.integrations.transformers.attention import attention
from patterncc.integrations.transformers.bounds import bounds
from patterncc.pipeline import load

PACKAGES: dict[str, ModuleType] = {}  # by the name of the implementation: transformers knows functions by name as well


def register(pattern: str | os.PathLike[str] | ModuleType) -> str:
    """The name under which transformers knows the pattern, for `attn_implementation=` and `set_attn_implementation`.

    `pattern` is the name of a shipped pattern, a path, or a package that was loaded before. transformers does not store
    the name in `config.json`: each process registers anew. Without the mask function, which transformers looks up under
    the same name, it would pass no padding mask at all.
    """
    package = pattern if isinstance(pattern, ModuleType) else load(pattern)
    name = _name(package)
    PACKAGES[name] = package
    AttentionInterface.register(name, functools.partial(attention, package))
    AttentionMaskInterface.register(name, functools.partial(bounds, causal=package.PATTERN["causal"]))
    return name


def _name(package: ModuleType) -> str:
    """`patterncc_NAME`, with a digest where another pattern has that name, or transformers would read more into it."""
    name = f"patterncc_{package.PATTERN['name']}"
    known = PACKAGES.get(name)
    taken = known is not None and known.PATTERN != package.PATTERN
    if taken or any(word in name for word in ("flash", "sdpa", "eager", "paged", "flex")):
        name = f"patterncc_{hashlib.sha256(repr(package.PATTERN).encode()).hexdigest()[:12]}"
    return name


def package_of(name: str) -> ModuleType | None:
    """The package that was registered under a name."""
    return PACKAGES.get(name)
