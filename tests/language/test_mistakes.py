"""Every file of tests/mistakes gets exactly the words beside it: the whole of what a person sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from patterncc import language
from patterncc.errors import PatternError

FOLDER = Path(__file__).parent.parent / "mistakes"
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))

# Words of pydantic and of PyYAML that a person should never read.
FOREIGN = (
    "Input should",
    "Extra inputs",
    "validation error",
    "while parsing",
    "could not find",
    "<block",
    "dict",
    "None",
)


@pytest.mark.parametrize("name", NAMES)
def test_words(name: str, update_golden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    with pytest.raises(PatternError) as caught:
        language.load(f"{name}.yaml")
    words = caught.value.render() + "\n"
    if update_golden:
        Path(f"{name}.txt").write_text(words, encoding="utf-8")
    assert words == Path(f"{name}.txt").read_text(encoding="utf-8")
    assert not [word for word in FOREIGN if word in words]
    assert all(d.message == d.message.strip() and not d.message.endswith(".") for d in caught.value.diagnostics)


def test_there_are_enough_and_none_without_its_other_half() -> None:
    assert len(NAMES) >= 45
    assert sorted(file.stem for file in FOLDER.glob("*.txt")) == NAMES


def test_mistakes_are_sorted_by_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    with pytest.raises(PatternError) as caught:
        language.load("many_at_once.yaml")
    places = [(d.span.line, d.span.column) for d in caught.value.diagnostics if d.span]
    assert len(places) >= 10 and places == sorted(places)
