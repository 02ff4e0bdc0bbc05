"""The pictures in the docs are what the script makes today."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return dict(script().files())


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_pictures", DOCS / "make_pictures.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_are_current(made: dict[str, str]) -> None:
    """Otherwise run `python docs/make_pictures.py` and look at what changed."""
    kept = {name: (DOCS / name).read_text(encoding="utf-8") if (DOCS / name).is_file() else "" for name in made}
    assert [name for name in made if kept[name] != made[name]] == []
    assert {f"pictures/{file.name}" for file in (DOCS / "pictures").iterdir()} <= set(made), "one that nothing makes"


def test_pictures_are_small_and_whole(made: dict[str, str]) -> None:
    for name, text in made.items():
        if name.endswith(".svg"):
            assert len(text) < 60_000, name
            root = ElementTree.fromstring(text)
            width, height = (float(root.attrib[side]) for side in ("width", "height"))
            for element in root.iter("{http://www.w3.org/2000/svg}text"):
                x, y = float(element.attrib["x"]), float(element.attrib["y"])
                assert 0 < x < width and 0 < y < height, (name, element.text)
