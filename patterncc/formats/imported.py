"""The result of every reader: a pattern as YAML text, the mask files that it needs, and notes for the user."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patterncc.errors import PatternError, Span, UsageError, quote, reason
from patterncc.formats.places import WrongValue
from patterncc.language import loads

if TYPE_CHECKING:
    import numpy as np

    from patterncc.language import Pattern

LARGEST_FILE = 64 * 2**20  # bytes of a JSON or TSV file that is read


@dataclass(frozen=True)
class Imported:
    """`yaml` is the pattern file; `masks` are the .npy files that it names; `notes` are sentences about it."""

    name: str
    yaml: str
    source: str  # what was read, in a word: "transformers", "deepspeed", "mask", "mask_mod", "heads"
    exact: bool  # whether the pattern equals its source at every length, as far as the source says
    notes: tuple[str, ...] = ()
    masks: dict[str, np.ndarray] = field(default_factory=dict)


def meant(yaml: str, file: str = "<text>", folder: str | None = None) -> Pattern:
    """The pattern of a text that a reader made. Raises UsageError where the source is inconsistent (17 heads on 4 KV
    heads)."""
    try:
        return loads(yaml, file, folder)
    except PatternError as error:
        first = error.diagnostics[0]
        raise UsageError(f"the source means a pattern that cannot be said: {first.message}", first.help) from None


def read_json(path: Path) -> Any:
    """The document in a JSON file; raises UsageError with the place of what is wrong."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            most = f"{LARGEST_FILE >> 20} MiB"
            raise UsageError(f"the file is larger than {most}", "is it the right file?", str(path))
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text)
    except UnicodeDecodeError:
        raise UsageError("the file is not UTF-8 text", file=str(path)) from None
    except json.JSONDecodeError as error:
        span = Span(error.lineno, error.colno, error.colno + 1)
        line = error.doc.split("\n")[error.lineno - 1].rstrip("\r")
        raise UsageError(f"this is not JSON: {error.msg}", None, str(path), span, line) from None
    except ValueError as error:  # a number of thousands of digits
        raise UsageError(f"this is not JSON as configurations have it: {error}", file=str(path)) from None
    except RecursionError:
        raise UsageError("the file is nested too deeply to be a configuration", file=str(path)) from None
    except OSError as error:
        raise UsageError(f"the file cannot be read: {reason(error)}", file=str(path)) from None


def whole(document: dict[str, Any], key: str, default: int | None, least: int = 1, most: int = 2**24) -> int:
    """The whole number under `key`; raises UsageError where it is missing without a default, or is none."""
    value = document.get(key)
    if value is None:
        value = default
    if value is None:
        raise UsageError(f"the file does not say `{key}`", f"it needs this key, a whole number from {least} on")
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise WrongValue(key, f"`{key}` is {quote(str(value), 60)}; expected a whole number from {least} to {most:,}")
    return value


def numbers(document: dict[str, Any], key: str, default: Sequence[int]) -> list[int]:
    """The list of whole numbers under `key`; one number stands for a list of it."""
    value = document.get(key, list(default))
    value = [value] if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(value, list) or len(value) > 2**16 or not all(type(x) is int and 0 <= x < 2**24 for x in value):
        raise WrongValue(
            key, f"`{key}` is {quote(str(value), 60)}; expected a list of whole numbers, none of them negative"
        )
    return value
