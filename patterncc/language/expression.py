"""Whole-number expressions over h (query head), g (KV head) and l (layer): + - * // % and parentheses.

Parsed by `ast`, kept as small trees of the operations allowed, evaluated without `eval`: any number on the way
stays within `LARGEST`, and text, depth and size are bounded before a tree exists.
"""

from __future__ import annotations

import ast
import operator
import re
from dataclasses import dataclass, field

from patterncc.errors import did_you_mean, quote

LONGEST = 200  # characters
DEEPEST = 30
LARGEST = 2**62  # of any intermediate value
NAMES = ("h", "g", "l")

# A tree is a number, a name, or (operation, start, end, operands): start and end are columns in the text.
Tree = int | str | tuple[str, int, int, tuple["Tree", ...]]

_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%"
}  # fmt: skip
_APPLY = {"+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod}
_TOKEN = re.compile(r"\s+|[0-9]+|[^\W\d]\w*|//|\*\*|[-+*/%()]")
_LONG_NAMES = {"head": "h", "heads": "h", "kv_head": "g", "group": "g", "layer": "l", "H": "h", "G": "g", "L": "l"}


class ExpressionError(Exception):
    """An expression that is not one, or that has no value somewhere; `start`, `end` are columns of its text."""

    def __init__(self, message: str, start: int = 0, end: int | None = None, help: str | None = None) -> None:
        super().__init__(message)
        self.message, self.start, self.end, self.help = message, start, end, help

    @property
    def inside(self) -> tuple[int, int] | None:
        return None if self.end is None else (self.start, self.end)


@dataclass(frozen=True)
class Expression:
    """A whole number that may depend on head, KV head and layer."""

    text: str
    names: frozenset[str] = frozenset()
    tree: Tree = field(default=0, compare=False, repr=False)

    @staticmethod
    def constant(value: int) -> Expression:
        """The expression that is `value` everywhere."""
        return Expression(str(value), frozenset(), value)

    @staticmethod
    def parse(text: str) -> Expression:
        """Read an expression.

        >>> Expression.parse("h % 4 + 16 * l").evaluate(6, 1, 2)
        34
        """
        if len(text) > LONGEST:
            raise ExpressionError(f"an expression of {len(text)} characters; the most is {LONGEST}")
        _check_tokens(text)
        indent = len(text) - len(text.lstrip())
        try:
            body = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            column = indent + max(0, (getattr(error, "offset", None) or 1) - 1)
            raise ExpressionError(
                f"{quote(text)} is not a complete expression", min(column, len(text) - 1), column + 1, _GRAMMAR
            ) from None
        names: set[str] = set()
        tree = _tree(body, indent, names, 0)
        return Expression(text.strip(), frozenset(names), tree)

    def evaluate(self, head: int, kv_head: int, layer: int) -> int:
        """The value at (h, g, l); raises ExpressionError where there is none."""
        return _evaluate(self.tree, {"h": head, "g": kv_head, "l": layer})

    def __str__(self) -> str:
        return self.text


_GRAMMAR = "whole numbers, h, g, l, + - * // % and parentheses"


def _check_tokens(text: str) -> None:
    """Refuse every character and word that no expression holds, before Python's parser sees it."""
    if not text.strip():
        raise ExpressionError("an empty expression", help=_GRAMMAR)
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        token = found[0] if found else text[at]
        end = at + len(token)
        if found is None or (token.isspace() and token.strip(" ")) or not token.isascii():
            raise ExpressionError(f"{quote(token)} does not belong in an expression", at, end, _GRAMMAR)
        if token == "/":
            raise ExpressionError("`/` does not give whole numbers", at, end, "write // to divide and round down")
        if token == "**":
            raise ExpressionError("powers are not allowed", at, end, _GRAMMAR)
        if token[0].isdigit() and (len(token) > 10 or token[0] == "0" != token):
            long = len(token) > 10
            raise ExpressionError(
                f"the number {quote(token, 20)} {'is too large' if long else 'begins with 0'}", at, end,
                "numbers in expressions have at most 10 digits" if long else f"write {token.lstrip('0') or '0'}",
            )  # fmt: skip
        if (token[0].isalpha() or token[0] == "_") and token not in NAMES:
            meant = _LONG_NAMES.get(token) or did_you_mean(token, NAMES)
            hint = f"did you mean {meant}? " if meant else ""
            raise ExpressionError(
                f"{quote(token)} is not a name here", at, end, f"{hint}h is the query head, g the KV head, l the layer"
            )
        at = end


def _tree(node: ast.expr, indent: int, names: set[str], depth: int) -> Tree:
    start = indent + node.col_offset
    end = indent + (node.end_col_offset or node.col_offset + 1)
    if depth > DEEPEST:
        raise ExpressionError(f"an expression more than {DEEPEST} levels deep", start, end)
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name) and node.id in NAMES:
        names.add(node.id)
        return node.id
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        operand = _tree(node.operand, indent, names, depth + 1)
        return ("-", start, end, (0, operand)) if isinstance(node.op, ast.USub) else operand
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        operands = (_tree(node.left, indent, names, depth + 1), _tree(node.right, indent, names, depth + 1))
        return (_BINARY[type(node.op)], start, end, operands)
    raise ExpressionError("this does not belong in an expression", start, end, _GRAMMAR)


def _evaluate(tree: Tree, at: dict[str, int]) -> int:
    if isinstance(tree, int):
        return tree
    if isinstance(tree, str):
        return at[tree]
    operation, start, end, (left, right) = tree
    a, b = _evaluate(left, at), _evaluate(right, at)
    if b == 0 and operation in ("//", "%"):
        raise ExpressionError(f"division by zero at {_at_text(at)}", start, end)
    value: int = _APPLY[operation](a, b)
    if abs(value) > LARGEST:
        raise ExpressionError(f"a value beyond 2^62 at {_at_text(at)}", start, end)
    return value


def _at_text(at: dict[str, int]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in at.items())
