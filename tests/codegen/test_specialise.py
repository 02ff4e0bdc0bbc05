"""The laws of specialising: identity, idempotence, totality, and nothing changes but what is marked."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patterncc.codegen import literal
from patterncc.codegen.specialise import set_constants, set_index_map, specialise
from patterncc.codegen.template import Template, TemplateError

TEMPLATE = '''"""A template."""

import triton.language as tl

# --- constants: patterncc sets these ---
BLOCK = tl.constexpr(16)  # tokens
CAUSAL = tl.constexpr(True)
HAS_TAIL = tl.constexpr(False)
OF: tuple[int, ...] = (0, 1)
# --- end constants ---


def rows(length):
    # rounded up
    n = length // BLOCK
    # only lengths that the block does not divide
    if HAS_TAIL:
        n += 1  # ragged

    if CAUSAL:
        # nothing ahead
        text = """
    as it stands
        """
        if not HAS_TAIL:
            n = min(n, 7)
        else:
            n = 0
        # the end of the branch
    else:
        text = ""
    for i in range(n):
        # --- index map: row to columns ---
        j = i
        # --- end index map ---
    return n, text, j, OF
'''
VALUES = {"BLOCK": 16, "CAUSAL": True, "HAS_TAIL": False, "OF": (0, 1)}

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner).map(tuple) | st.lists(inner) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=30,
)


def test_identity() -> None:
    assert set_constants(TEMPLATE, VALUES) == TEMPLATE
    assert set_index_map(TEMPLATE, "j = i") == TEMPLATE


@pytest.mark.parametrize("causal", [False, True])
def test_idempotence_and_totality(causal: bool) -> None:
    values = VALUES | {"CAUSAL": causal, "BLOCK": 64, "OF": tuple(range(200))}
    once = specialise(TEMPLATE, values, index_map="j = 3 * i", names={"rows": "rows_demo"})
    assert specialise(once, values, index_map="j = 3 * i", names={"rows": "rows_demo"}) == once
    assert "def rows_demo(length):" in once and "        j = 3 * i\n" in once


def test_all_else_stays() -> None:
    outside = [text.partition("# --- end constants ---")[2] for text in (TEMPLATE, specialise(TEMPLATE, VALUES))]
    assert outside[0] == outside[1]


@pytest.mark.parametrize("values", [{**VALUES, "MORE": 1}, {k: v for k, v in VALUES.items() if k != "BLOCK"}])
def test_names_must_match(values: dict[str, object]) -> None:
    with pytest.raises(TemplateError) as raised:
        set_constants(TEMPLATE, values)
    assert all(name in str(raised.value) for name in ("BLOCK, CAUSAL, HAS_TAIL, OF", ", ".join(sorted(values))))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# --- constants: a ---\nA = 1\n", "found 1 and 0"),
        (
            "# --- constants: a ---\n# --- end constants ---\n# --- constants: b ---\n# --- end constants ---\n",
            "found 2",
        ),
        ("# --- constants: a ---\nA = len('a')\n# --- end constants ---\n", "not a literal"),
        ("# --- constants: a ---\nimport os\n# --- end constants ---\n", "not a constant: import os"),
    ],
)
def test_a_template_without_discipline_is_refused(text: str, words: str) -> None:
    with pytest.raises(TemplateError, match=words):
        specialise(text, {"A": True})


@given(plain)
def test_a_literal_reads_back_equal(value: object) -> None:
    assert literal.same(ast.literal_eval(literal.write(value)), value)


def test_what_is_no_literal_is_refused() -> None:
    for value in (float("inf"), object(), {1, 2}.__iter__):
        with pytest.raises((ValueError, SyntaxError)):
            literal.write(value)


def test_the_marks_are_found_at_any_depth() -> None:
    assert Template(TEMPLATE).values == VALUES
    assert Template(TEMPLATE).index_map is not None and Template("x = 1\n").block is None
