"""The language: YAML → a checked `Pattern`. Light to import: yaml and pydantic come with the first call."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patterncc.language.model import Pattern
    from patterncc.language.resolved import Resolved, ResolvedStride

__all__ = ["Pattern", "Resolved", "ResolvedStride", "load", "loads", "schema"]


def load(path: str | os.PathLike[str]) -> Pattern:
    """The pattern in a YAML file; raises `patterncc.errors.PatternError` with every mistake in it."""
    from patterncc.language import loading

    return loading.load(path)


def loads(text: str, file: str = "<text>", folder: str | os.PathLike[str] | None = None) -> Pattern:
    """The pattern in a YAML text; `folder` is where its masks are, `file` what mistakes call it."""
    from patterncc.language import loading

    return loading.loads(text, file, folder)


def schema() -> dict[str, Any]:
    """The JSON Schema of the language, draft 2020-12."""
    from patterncc.language.json_schema import json_schema

    return json_schema()


def __getattr__(name: str) -> Any:
    if name == "Pattern":
        from patterncc.language.model import Pattern

        return Pattern
    if name in ("Resolved", "ResolvedStride"):
        from patterncc.language import resolved

        return getattr(resolved, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
