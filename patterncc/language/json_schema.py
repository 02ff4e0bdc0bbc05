"""The JSON Schema of the language, for editors that complete and check pattern files."""

from __future__ import annotations

from typing import Any

from patterncc.language.model import Pattern


def json_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12: every key with its description; no unknown keys. What it cannot say
    (which heads are claimed, divisors, offsets below their stride) is left to `load`."""
    schema = _tidy(Pattern.model_json_schema(by_alias=True))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "A patterncc pattern, version 1",
    }


def _tidy(node: Any) -> Any:
    """The schema without `null`, which pydantic adds for keys that may be left out: a key that is written has a
    value."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _tidy(value) for key, value in node.items() if not (key == "default" and value in (None, []))}
    kept = {"anyOf" if key == "oneOf" else key: value for key, value in kept.items() if key != "discriminator"}
    choices = [choice for choice in kept.get("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1 and len(choices) < len(kept["anyOf"]):
        return {**{key: value for key, value in kept.items() if key != "anyOf"}, **choices[0]}
    return {**kept, "anyOf": choices} if choices else kept
