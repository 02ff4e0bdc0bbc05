"""Whether a model multiplies its scores by what the pattern states."""

from __future__ import annotations

from types import ModuleType

from patterncc.errors import UsageError
from patterncc.integrations.place import place

CLOSE = 1e-6  # of the scale: one number, computed in two ways


def check_scale(package: ModuleType, theirs: float) -> None:
    """Raise UsageError where the pattern states a scale and the model's is another one."""
    ours = package.PATTERN.get("scale")
    if ours is not None and not abs(theirs - ours) <= CLOSE * ours:
        raise UsageError(
            f"the model scales its scores by {theirs!r}, the pattern {package.PATTERN['name']} by {ours!r}"
            f"{place(package, 'scale')}",
            f"write `scale: {theirs!r}`, or leave the key out: the model passes its own",
        )
