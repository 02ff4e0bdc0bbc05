"""The sizes of one layer of a package, whose layers may differ."""

from __future__ import annotations

from types import ModuleType

SIZES = ("heads", "kv_heads", "head_dim", "v_head_dim")


def sizes(package: ModuleType, layer: int) -> dict[str, int]:
    """Heads, KV heads, numbers a head and numbers a value of a layer."""
    facts = package.PATTERN["shapes"][layer] if package.PATTERN.get("shapes") else package.PATTERN
    return {key: facts.get(key) or facts["head_dim"] for key in SIZES}


def part(package: ModuleType, layer: int) -> ModuleType:
    """The package of a layer's shape: the package itself where all layers have one."""
    return package.part(layer) if hasattr(package, "part") else package
