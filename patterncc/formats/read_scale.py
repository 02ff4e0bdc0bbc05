"""What a transformers `config.json` multiplies scores by, as its own attention classes read it."""

from __future__ import annotations

from typing import Any

from patterncc.errors import quote
from patterncc.formats.places import WrongValue
from patterncc.language.limits import SCALE_FROM, SCALE_TO

FIXED = {"gemma4_text": 1.0}  # queries and keys are normalised


def scale_of(config: dict[str, Any], kind: str) -> float | None:
    """The scale of all layers where the model has one of its own; None: head_dim ** -0.5."""
    if kind in FIXED:
        return FIXED[kind]
    if config.get("attention_multiplier") is not None:  # Granite
        return _number("attention_multiplier", config["attention_multiplier"], SCALE_FROM, SCALE_TO)
    scalar = config.get("query_pre_attn_scalar")
    return None if scalar is None else _number("query_pre_attn_scalar", scalar, SCALE_TO**-2, SCALE_FROM**-2) ** -0.5


def _number(key: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise WrongValue(key, f"`{key}` is {quote(str(value), 40)}; expected a positive number")
    return float(value)
