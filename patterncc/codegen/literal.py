"""Plain data as Python source, in the layout that `ruff format` gives it."""

from __future__ import annotations

import ast

WIDTH = 120


def write(value: object, *, column: int = 0, indent: int = 0, after: int = 0) -> str:
    """The literal of `value`, read back and compared before it is returned.

    It starts at `column` of a line indented by `indent`, and `after` more characters follow it. What does not fit on
    the line goes one element a line; a long run of integers is filled instead, which `ruff format` must be told
    (`is_filled`).

    >>> write({"block": 64, "about": 'a "quote"'})
    '{"block": 64, "about": \\'a "quote"\\'}'
    """
    written = text(value, column=column, indent=indent, after=after)
    if not same(ast.literal_eval(written), value):
        raise ValueError(f"{value!r} cannot be written as a literal")
    return written


def text(value: object, *, column: int = 0, indent: int = 0, after: int = 0) -> str:
    """What `write` gives, not yet read back: for callers who read back all that they have written."""
    flat = _flat(value)
    if column + len(flat) + after <= WIDTH or not isinstance(value, (tuple, list, dict)) or not value:
        return flat
    inner = " " * (indent + 4)
    if isinstance(value, dict):
        keys = {k: f"{_flat(k)}: " for k in value}
        lines = [
            f"{keys[k]}{text(v, column=indent + 4 + len(keys[k]), indent=indent + 4, after=1)},"
            for k, v in value.items()
        ]
    elif _is_run(value):
        lines = _fill([f"{x}," for x in value], WIDTH - indent - 4)
    else:
        lines = [f"{text(x, column=indent + 4, indent=indent + 4, after=1)}," for x in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]" if isinstance(value, list) else "()"
    return "\n".join([opening, *(inner + line for line in lines), " " * indent + closing])


def is_filled(value: object, *, column: int = 0, indent: int = 0, after: int = 0) -> bool:
    """Whether `write` fills lines with integers, which `ruff format` would put one a line."""
    if column + len(_flat(value)) + after <= WIDTH:
        return False
    if isinstance(value, dict):
        return any(
            is_filled(v, column=indent + 4 + len(_flat(k)) + 2, indent=indent + 4, after=1) for k, v in value.items()
        )
    if isinstance(value, (tuple, list)):
        return _is_run(value) or any(is_filled(v, column=indent + 4, indent=indent + 4, after=1) for v in value)
    return False


def same(a: object, b: object) -> bool:
    """Whether two plain values are equal and of equal types throughout: 1 is neither True nor 1.0.

    >>> same((1, {"a": 2.0}), (1, {"a": 2.0})), same((1,), (True,)), same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    (True, False, False)
    """
    if type(a) is not type(b):
        return False
    if isinstance(a, dict) and isinstance(b, dict):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a.items(), b.items(), strict=True))
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b)


def _flat(value: object) -> str:
    """On one line."""
    if isinstance(value, str):
        return _string(repr(value))
    if isinstance(value, bytes):
        return "b" + _string(repr(value)[1:])
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flat(k)}: {_flat(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flat, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_flat, value)) + ("," if len(value) == 1 else "") + ")"
    return repr(value)


def _string(text: str) -> str:
    """A string's `repr` with double quotes, unless that needs more backslashes.

    >>> print(_string(repr("it's")), _string(repr('"')), _string(repr('both " and \\'')))
    "it's" '"' "both \\" and '"
    """
    body = text[1:-1]
    if text[0] == '"' or body.count('"') > body.count("\\'"):
        return text
    return '"' + body.replace("\\'", "'").replace('"', '\\"') + '"'


def _is_run(value: tuple[object, ...] | list[object]) -> bool:
    return len(value) > 8 and all(type(x) is int for x in value)


def _fill(words: list[str], width: int) -> list[str]:
    """Words joined by spaces into lines of at most `width` characters."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines
