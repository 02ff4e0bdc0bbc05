"""The sizes of one layer of a package, whose layers may differ."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

SIZES = ("heads", "kv_heads", "head_dim", "v_head_dim")


def sizes(package: ModuleType, layer: int) -> dict[str, int]:
    """Heads, KV heads, numbers a head and numbers a value of a layer."""
    facts = facts_of(package, layer)
    return {key: facts.get(key) or facts["head_dim"] for key in SIZES}


def has_sinks(package: ModuleType, layer: int) -> bool:
    """Whether the pattern says that the heads of a layer have learned sinks."""
    return facts_of(package, layer).get("sinks") is not None


def facts_of(package: ModuleType, layer: int) -> Mapping[str, Any]:
    """What the pattern says of a layer alone where layers differ, else of all."""
    return package.PATTERN["shapes"][layer] if package.PATTERN.get("shapes") else package.PATTERN
