"""The numbers of a shard: expressions, lengths in blocks or tokens, ranges. How each is read, and its JSON Schema."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from patterncc.errors import did_you_mean, quote
from patterncc.language.expression import LONGEST, Expression, ExpressionError
from patterncc.language.kinds import Kind, Schema, mistake, must_be
from patterncc.language.limits import MOST_INDICES
from patterncc.language.scalars import LONGEST_INTEGER

LONGEST_UNIT = 40  # of a word after a number, with the spaces between

EXPRESSION_SCHEMA: Schema = {"type": "string", "pattern": r"^[hgl0-9+\-*/%() ]+$", "maxLength": 200}
TOKENS_SCHEMA: Schema = {"type": "string", "pattern": r"^[hgl0-9+\-*/%() ]+ tokens?$", "maxLength": 220}


@dataclass(frozen=True)
class Length:
    """A number of blocks or of tokens."""

    number: Expression
    unit: Literal["blocks", "tokens"] = "blocks"


@dataclass(frozen=True)
class Indices:
    """One item of `globals`: a number, or a range with both ends."""

    first: Expression
    last: Expression | None = None

    @property
    def count(self) -> int:
        """How many numbers the range has, capped at the limit."""
        size = 1 if self.last is None else self.last.evaluate(0, 0, 0) - self.first.evaluate(0, 0, 0) + 1
        return min(size, MOST_INDICES)


def parse_expression(text: str) -> Expression:
    """`Expression.parse` with its errors as pydantic's."""
    try:
        return Expression.parse(text)
    except ExpressionError as error:
        raise mistake(error.message, error.help, error.inside) from None


def _number(value: Any) -> Expression:
    if type(value) is int:
        return Expression.constant(value)
    if not isinstance(value, str):
        several = isinstance(value, dict) and "every" in value
        hint = "a stride with keys of its own stands in a list: `strides: [{every: ...}]`" if several else None
        raise must_be("a whole number or an expression over h, g and l", hint)
    if _unit(value)[1] in ("token", "tokens"):
        raise must_be("a number of blocks", "only local, before, after and sink are given in tokens")
    return parse_expression(value)


def _unit(text: str) -> tuple[str, str]:
    """The text before a unit, and the unit: its last word, of two letters or more; "" where there is none. The text is
    searched once, from its end, and one that no expression could be as long as has no unit.

    >>> _unit(" 1024 tokens "), _unit("h + 1"), _unit("16 * (l + 1) blocks")
    (('1024', 'tokens'), ('h + 1', ''), ('16 * (l + 1)', 'blocks'))
    """
    words = text.strip()
    if len(words) <= LONGEST + LONGEST_UNIT and len(parts := words.rsplit(maxsplit=1)) == 2:
        number, unit = parts[0].rstrip(), parts[1]
        if len(unit) > 1 and unit.isascii() and unit.isalpha() and (number[-1].isalnum() or number[-1] in "_)"):
            return number, unit
    return words, ""


def _length(value: Any) -> Length:
    expected = 'a whole number of blocks, or "N tokens"'
    if type(value) is int:
        return Length(Expression.constant(value))
    if not isinstance(value, str):
        raise must_be(expected)
    number, unit = _unit(value)
    if unit in ("token", "tokens"):
        plain = re.fullmatch(f"0|[1-9][0-9]{{0,{LONGEST_INTEGER - 1}}}", number)
        return Length(Expression.constant(int(number)) if plain else parse_expression(number), "tokens")
    if unit in ("block", "blocks"):
        raise must_be(expected, f"a number without a unit is in blocks; write {number.lstrip('0') or 0}")
    if unit:
        close = did_you_mean(unit, ["tokens", "token"])
        raise must_be(expected, f'did you mean "{number} {close}"?' if close else "lengths are in blocks or tokens")
    if found := re.fullmatch(r"([0-9]{1,20})(tokens?|t|tok)", value.strip()):
        raise must_be(expected, f'did you mean "{found[1]} tokens"?')
    return Length(parse_expression(value))


def _index(value: Any) -> Indices:
    if isinstance(value, str) and (found := re.fullmatch(r"\s*([0-9]{1,10})\s*-\s*([0-9]{1,10})\s*", value)):
        first, last = int(found[1]), int(found[2])
        if padded := next((text for text in found.groups() if text[0] == "0" != text), None):
            raise mistake(f"the number {quote(padded)} begins with 0", f"write {padded.lstrip('0') or 0}")
        if last < first:
            raise mistake(f"the range {quote(value)} runs backwards", f"did you mean {last}-{first}?")
        return Indices(Expression.constant(first), Expression.constant(last))
    return Indices(_number(value))


def _number_schemas(lowest: int) -> list[Schema]:
    return [{"type": "integer", "minimum": lowest}, EXPRESSION_SCHEMA]


NUMBER = Kind(_number, {"anyOf": _number_schemas(0)})
POSITIVE = Kind(_number, {"anyOf": _number_schemas(1)})
LENGTH = Kind(_length, {"anyOf": [*_number_schemas(1), TOKENS_SCHEMA]})
SINK = Kind(_length, {"anyOf": [*_number_schemas(0), TOKENS_SCHEMA]})
INDEX = Kind(_index, {"anyOf": [*_number_schemas(0), {"type": "string", "pattern": "^ *[0-9]+ *- *[0-9]+ *$"}]})
