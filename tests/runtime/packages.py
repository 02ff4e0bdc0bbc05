"""A small generated package for the cache's tests."""

from __future__ import annotations

from pathlib import Path

from patterncc.codegen.package import GeneratedPackage
from patterncc.runtime import writing
from patterncc.runtime.cache import Cache


def package(name: str = "demo", size: int = 1000, source: str = "pattern: 1\n") -> GeneratedPackage:
    sources = {"__init__.py": b"X = 1\n", "table_0.bin": bytes(size), "ops.py": b"Y = 2\n"}
    sources |= {"inner/__init__.py": b"", "inner/ops.py": b"Y = 2\n", "inner/c/ops.c": b"int y = 2;\n"}
    return GeneratedPackage(name, source, {"plan": None}, sources)


def rubbish(cache: Cache) -> list[Path]:
    return list((cache.root / "tmp").iterdir())


ROOT = str(Path(writing.__file__).parents[2])
