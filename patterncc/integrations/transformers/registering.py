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


def register(pattern: str | os.PathLike[str] | ModuleType, *, unique: bool = False) -> str:
    """The name under which transformers knows the pattern, for `attn_implementation=` and `set_attn_implementation`.

    `pattern` is the name of a shipped pattern, a path, or a package that was loaded before. transformers does not store
    the name in `config.json`: each process registers anew; `attach` stores it, as one that no other pattern has
    (`unique`). Without the mask function, which transformers looks up under
    the same name, it would pass no padding mask at all.
    """
    package = pattern if isinstance(pattern, ModuleType) else load(pattern)
    name = _name(package, unique)
    PACKAGES[name] = package
    AttentionInterface.register(name, functools.partial(attention, package))
    AttentionMaskInterface.register(name, functools.partial(bounds, causal=package.PATTERN["causal"]))
    return name


def _name(package: ModuleType, unique: bool) -> str:
    """`patterncc_NAME`, with a digest where it is to be unique or another pattern has that name, or the digest alone
    where transformers would read more into the name."""
    name, digest = (
        f"patterncc_{package.PATTERN['name']}",
        hashlib.sha256(repr(package.PATTERN).encode()).hexdigest()[:12],
    )
    if any(word in name for word in ("flash", "sdpa", "eager", "paged", "flex")):
        return f"patterncc_{digest}"
    known = PACKAGES.get(name)
    taken = known is not None and known.PATTERN != package.PATTERN
    return f"{name}_{digest}" if taken or unique else name


def package_of(name: str) -> ModuleType | None:
    """The package that was registered under a name."""
    return PACKAGES.get(name)
