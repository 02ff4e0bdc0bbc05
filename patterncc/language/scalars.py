"""What an unquoted YAML scalar means, and which ones mean different things to different readers.

YAML 1.1 (PyYAML) and YAML 1.2 disagree on `on`, `12:30`, `010`, `1e3` and more. A pattern file may hold
none of them: each is a mistake with the two readings and what to write instead.
"""

from __future__ import annotations

import re
from decimal import Decimal

from patterncc.errors import quote

LONGEST_INTEGER = 20  # digits that are turned into a number at all; what each key allows is far below

Scalar = str | int | bool | None

_WORDS: dict[str, Scalar] = {"": None, "~": None}
_WORDS |= dict.fromkeys(("null", "Null", "NULL"))
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True)
_WORDS |= dict.fromkeys(("false", "False", "FALSE"), False)

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_SWITCH = re.compile(r"(?i:yes|no|on|off|y|n)")
_BASED = re.compile(r"[-+]?0(?:[xX][0-9a-fA-F_]+|[bB][01_]+|[oO][0-7_]+)")
_PADDED = re.compile(r"[-+]?0[0-9_]+")
_UNDERSCORED = re.compile(r"[-+]?[0-9]+_[0-9_]*")
_CLOCK = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-9]+)+(?:\.[0-9_]*)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t].*)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_FRACTION = re.compile(r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?")


class AmbiguousScalar(Exception):
    """A scalar that a pattern file may not hold unquoted: `message` says why, `help` what to write."""

    def __init__(self, message: str, help: str) -> None:
        super().__init__(message)
        self.message, self.help = message, help


def plain_scalar(text: str) -> Scalar:
    """The value of an unquoted scalar: None, a truth value, a whole number, or the text itself.

    >>> plain_scalar("64"), plain_scalar("true"), plain_scalar("0-27"), plain_scalar("~")
    (64, True, '0-27', None)
    >>> plain_scalar("0x10")
    Traceback (most recent call last):
    patterncc.language.scalars.AmbiguousScalar: `0x10` is a number to some YAML readers and text to others
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        if len(text.lstrip("+-")) > LONGEST_INTEGER:
            raise AmbiguousScalar(
                f"a number of {len(text.lstrip('+-'))} digits; nothing in a pattern is counted that high",
                "lengths end at 2147483647 tokens or 134217728 blocks",
            )
        return int(text)
    _refuse(text)
    return text


def decimal(text: str) -> float | None:
    """The number that digits with a point between them are; None for what has no point and no exponent.

    >>> decimal("50.0"), decimal("5")
    (50.0, None)
    >>> decimal("1e3")
    Traceback (most recent call last):
    patterncc.language.scalars.AmbiguousScalar: `1e3` is no number as a pattern file writes them
    """
    if re.fullmatch(r"[-+]?[0-9]{1,12}\.[0-9]{1,25}", text):
        return float(text)
    if _FRACTION.fullmatch(text) or _NOT_FINITE.fullmatch(text):
        value = float(text.replace("_", "")) if text.lstrip("+-")[:2].lower() not in (".i", ".n") else 0.0
        written = f"{Decimal(repr(value)):f}" if 1e-12 < value < 1e12 else "digits with a point between them: 0.125"
        raise AmbiguousScalar(f"{quote(text)} is no number as a pattern file writes them", f"write {written}")
    return None


def _refuse(text: str) -> None:
    """Raise for a scalar with two readings, or with one that no key takes."""
    if _SWITCH.fullmatch(text):
        raise AmbiguousScalar(
            f"{quote(text)} is a truth value to some YAML readers and text to others",
            f'write true or false; where text is meant, write "{text}" in quotes',
        )
    if _BASED.fullmatch(text):
        digits, base = text.replace("_", "").lstrip("+-"), {"x": 16, "b": 2, "o": 8}[text.lstrip("+-")[1].lower()]
        value = str(int(digits[2:] or "0", base)) if len(digits) <= LONGEST_INTEGER else "the number in decimal digits"
        raise AmbiguousScalar(f"{quote(text)} is a number to some YAML readers and text to others", f"write {value}")
    if _PADDED.fullmatch(text):
        digits = text.replace("_", "").lstrip("+-").lstrip("0") or "0"
        hint = f"write {digits}" if len(digits) <= LONGEST_INTEGER else "write it without the leading zeros"
        raise AmbiguousScalar(f"{quote(text)} is octal to some YAML readers and decimal to others", hint)
    if _UNDERSCORED.fullmatch(text):
        digits = text.replace("_", "")
        hint = f"write {digits}" if len(digits) <= LONGEST_INTEGER else "write it without the underscores"
        raise AmbiguousScalar(f"{quote(text)} is a number to some YAML readers and text to others", hint)
    if _CLOCK.fullmatch(text):
        raise AmbiguousScalar(
            f"{quote(text)} is a number in base 60 to some YAML readers and text to others",
            f'where a selector is meant, put it in quotes: "{text}"' if len(text) <= 40 else "put it in quotes",
        )
    if _DATE.fullmatch(text):
        raise AmbiguousScalar(
            f"{quote(text)} is a date to some YAML readers and text to others", "where text is meant, put it in quotes"
        )
    if _NOT_FINITE.fullmatch(text):
        raise AmbiguousScalar(
            f"{quote(text)} is not a whole number", "all numbers but softcap and scale are whole numbers"
        )
    if _FRACTION.fullmatch(text):
        raise AmbiguousScalar(f"{quote(text)} is not a whole number", _fraction_hint(text))


def _fraction_hint(text: str) -> str:
    value = float(text.replace("_", "")) if len(text) <= LONGEST_INTEGER else 0.5
    whole = value.is_integer() and abs(value) < 2**53
    return f"write {int(value)}" if whole else "all numbers but softcap and scale are whole numbers; put text in quotes"
