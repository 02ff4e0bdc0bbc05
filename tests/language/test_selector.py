"""Selectors: sets of numbers as Python's own ranges and slices have them, each number claimed once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patterncc.language.claims import claim
from patterncc.language.selector import Selector, SelectorError, compress


@pytest.mark.parametrize(
    ("written", "numbers"),
    [
        ("all", range(12)),
        (3, [3]),
        ("3", [3]),
        ([5, 0], [5, 0]),  # in the order written
        ("0-3", range(4)),
        ("0 - 3", range(4)),
        ("1::2", range(1, 12, 2)),
        ("4:8", range(4, 8)),
        ("::3", range(0, 12, 3)),
        ("10:", [10, 11]),
        (":2", [0, 1]),
        ("0-3, 8", [0, 1, 2, 3, 8]),
        ([0, "4-6", "9::2"], [0, 4, 5, 6, 9, 11]),
    ],
)
def test_selects(written: object, numbers: object) -> None:
    assert Selector.parse(written).select(12, "head") == tuple(numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "written",
    ["", "-1", "1-", "a", "0--3", "1:2:3:4", "0.5", "all, 3", "::0", "3-1", [], [["0"]], [True], None, 1.0, -1, {}],
)
def test_refuses(written: object) -> None:
    with pytest.raises(SelectorError):
        Selector.parse(written)


@pytest.mark.parametrize("written", [12, "0-12", "0:13", "12::2", "99999999", [0, 0], "0-3, 3", "5:5"])
def test_refuses_what_does_not_exist_or_is_named_twice(written: object) -> None:
    with pytest.raises(SelectorError):
        Selector.parse(written).select(12, "head")


@given(st.integers(0, 11), st.integers(0, 12), st.integers(1, 5))
def test_slices_are_python_s(start: int, stop: int, step: int) -> None:
    expected = tuple(range(12))[start:stop:step]
    if expected:
        assert Selector.parse(f"{start}:{stop}:{step}").select(12, "head") == expected


@given(st.sets(st.integers(0, 60)))
def test_compressed_numbers_read_back(numbers: set[int]) -> None:
    text = compress(numbers)
    if numbers and "more" not in text:
        assert sorted(Selector.parse(text).select(61, "head")) == sorted(numbers)


@given(st.lists(st.sampled_from(["0-3", "4", "rest", "5-7", "6", "2::2", "all"]), min_size=1, max_size=4))
def test_every_number_is_claimed_once_or_reported(texts: list[str]) -> None:
    reports: list[str] = []
    claims = claim(
        [((n,), Selector.parse(text)) for n, text in enumerate(texts)],
        8,
        "head",
        lambda path, message, help=None, **rest: reports.append(message),
    )
    claimed = sorted(number for chosen in claims.chosen for number in chosen or ())
    if not reports:
        assert sorted([*claimed, *claims.unclaimed]) == list(range(8))
    else:
        assert len(claimed) != len(set(claimed)) or texts.count("rest") > 1 or "no head is left for `rest`" in reports
