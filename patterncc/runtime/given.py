"""A pattern that is handed over as text, or as keys and values, and not as a file."""

from __future__ import annotations

import json
import numbers
import operator
import os
from collections.abc import Mapping
from typing import Any

from patterncc.errors import UsageError

Given = str | os.PathLike[str] | Mapping[str, Any]  # a path, a shipped name, YAML text, or keys and values


def text_of(pattern: object) -> str | None:
    """The text of a pattern; None for a path or a name. A text has several lines, or is in braces.

    Raises UsageError for values that no pattern file could hold, TypeError for what is neither.

    >>> text_of("patterns/demo.yaml"), text_of("{name: demo}"), text_of({"name": "demo", "block": 16})
    (None, '{name: demo}', '{\\n "name": "demo",\\n "block": 16\\n}\\n')
    """
    if isinstance(pattern, str):
        return pattern if "\n" in pattern or pattern.lstrip().startswith("{") else None
    if isinstance(pattern, os.PathLike):
        return None
    if not isinstance(pattern, Mapping):
        raise TypeError(f"a pattern is a path, a name, YAML text or a dict; got {type(pattern).__name__}")
    try:
        return json.dumps(dict(pattern), indent=1, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        why = "it holds itself, or too much within each other" if isinstance(error, RecursionError) else str(error)
        raise UsageError(
            f"the pattern is not plain data: {why}",
            "write text, numbers, true, lists and dicts; of an array take .tolist()",
        ) from None


def _plain(value: Any) -> Any:
    """Numbers of other libraries, paths, and mappings as JSON has them; TypeError for what it has not."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, range):
        return list(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return float(value)
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{type(value).__name__} is no value of a pattern") from None
