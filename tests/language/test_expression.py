"""Expressions: Python's own value for everything allowed, and a located refusal for everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patterncc.language.expression import LARGEST, Expression, ExpressionError

ATOMS = st.integers(0, 99).map(str) | st.sampled_from(["h", "g", "l"])
TEXTS = st.recursive(
    ATOMS,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "%"]), inner).map(" ".join)
        | inner.map(lambda text: f"({text})")
        | inner.map(lambda text: f"-{text}")
    ),
    max_leaves=8,
)


@given(TEXTS, st.integers(0, 40), st.integers(0, 9), st.integers(0, 30))
def test_values_are_python_s(text: str, h: int, g: int, layer: int) -> None:
    try:
        expected = eval(text, {}, {"h": h, "g": g, "l": layer})
    except ZeroDivisionError:
        expected = None
    try:
        value = Expression.parse(text).evaluate(h, g, layer)
    except ExpressionError as error:
        assert (
            expected is None
            or abs(expected) > LARGEST
            or "levels deep" in error.message
            or "characters" in error.message
        )
    else:
        assert value == expected


def test_names_used() -> None:
    assert Expression.parse("h // 4 + 3 * (l - 1)").names == {"h", "l"}
    assert Expression.parse(" 12 ").names == frozenset()


@pytest.mark.parametrize(
    ("text", "start", "end", "words"),
    [
        ("2 * head", 4, 8, "`head`"),
        ("h / 2", 2, 3, "`/`"),
        ("h ** 2", 2, 4, "powers"),
        ("h + 0x10", 5, 8, "`x10`"),
        ("h + 010", 4, 7, "begins with 0"),
        ("12345678901", 0, 11, "too large"),
        ("h if g else l", 2, 4, "`if`"),
        ("h.real", 1, 2, "`.`"),
        ("h, g", 1, 2, "`,`"),
        ("h\n+1", 1, 2, "does not belong"),
        ("\uff48", 0, 1, "does not belong"),
        ("h(2)", 0, 4, "does not belong"),
        ("2 3", 0, None, "not a complete expression"),
        ("(h", 0, None, "not a complete expression"),
        ("h +", None, None, "not a complete expression"),
        ("", 0, None, "empty"),
        ("1.5", 1, 2, "`.`"),
        ("h < 3", 2, 3, "`<`"),
        ("~h", 0, 1, "`~`"),
    ],
)
def test_refusals_are_located(text: str, start: int | None, end: int | None, words: str) -> None:
    with pytest.raises(ExpressionError, match=words) as caught:
        Expression.parse(text)
    if end is not None:
        assert (caught.value.start, caught.value.end) == (start, end)


def test_no_value_somewhere() -> None:
    with pytest.raises(ExpressionError, match="division by zero at h = 3, g = 1, l = 2") as caught:
        Expression.parse("8 // (h - 3)").evaluate(3, 1, 2)
    assert caught.value.inside == (0, 12)
    with pytest.raises(ExpressionError, match="beyond 2\\^62"):
        Expression.parse("9999999999 * 9999999999").evaluate(0, 0, 0)
