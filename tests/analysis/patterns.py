"""Patterns of one layout in a line."""

from __future__ import annotations

from pathlib import Path

from patterncc.analysis.verdict import Verdict
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout
from patterncc.language import Pattern, loads
from tests.analysis import oracle

GALLERY = Path(__file__).parents[2] / "patterns"


def pattern(*lines: str, heads: int = 32, kv_heads: int = 8, **keys: str) -> Pattern:
    given = {"pattern": 1, "name": "x", "heads": heads, "kv_heads": kv_heads, "block": 64, **keys}
    head = [f"{key}: {value}" for key, value in given.items()]
    return loads("\n".join([*head, "shards:", "  - heads: all", *(f"    {line}" for line in lines), ""]))


def s2(offset: str, stride: int = 16, **keys: str) -> Pattern:
    return pattern("local: 16", f"stride: {stride}", f"offset: {offset}", **keys)


def by_scope(verdicts: tuple[Verdict, ...]) -> dict[str, Verdict]:
    return {verdict.scope: verdict for verdict in verdicts}


def one(text: str, causal: bool = True, **keys: int) -> Classes:
    return oracle.classes_of([[Layout.parse(text)]], block=64, causal=causal, kv_heads=1, **keys)
