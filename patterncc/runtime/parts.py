"""Which package serves a layer: one of a single shape where layers differ in their shapes, else the package itself."""

from __future__ import annotations

from types import ModuleType


def part_of(package: ModuleType, layer: int) -> ModuleType:
    """The package that serves a layer."""
    return package.part(layer) if hasattr(package, "part") else package


def parts_of(package: ModuleType) -> dict[str, tuple[int, ...]]:
    """Every package of a single shape, by its module's name, with the layers that it serves."""
    found: dict[str, tuple[int, ...]] = {}
    for layer in range(package.PATTERN["layers"]):
        name = part_of(package, layer).__name__
        found[name] = (*found.get(name, ()), layer)
    return found
