"""`verify kernels`: it passes on what is right, and names what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from patterncc import language
from patterncc.analysis.verdict import Verdict
from patterncc.codegen.package import GeneratedPackage
from patterncc.passes import lower
from patterncc.runtime import check
from patterncc.runtime.check import check_kernels

YAML = """\
pattern: 1
name: small
heads: 4
kv_heads: 2
head_dim: 16
block: 16
layers: 2
shards:
  - heads: all
    local: 20 tokens
    stride: 3
    offset: h
dense_layers: 1
"""
pytestmark = pytest.mark.interpret


def verdicts(text: str = YAML) -> dict[tuple[str, int], tuple[bool | None, str]]:
    pattern = language.loads(text)
    found = check_kernels(pattern, lower(pattern))
    return {(v.scope, v.layers[0]): (v.holds, f"{v.witness or ''}{v.note}") for v in found}


def test_a_right_package() -> None:
    found = verdicts()
    assert set(found) == {(scope, layer) for scope in ("mask", "table", "attention", "kernel") for layer in (0, 1)}
    assert all(holds for holds, _ in found.values()), found


def test_numpy_is_quiet_about_rows_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their LSE is log 0, of which the interpreter's numpy warned whoever looks at the verdicts."""
    heard, right = {}, check._compared

    def listening(scope: str, *arguments: Any) -> Verdict:
        heard[scope] = np.geterr()["divide"]
        return right(scope, *arguments)

    monkeypatch.setattr(check, "_compared", listening)
    verdicts()
    assert heard == {"attention": "warn", "kernel": "ignore"}


def test_a_right_package_whose_scores_are_not_scaled() -> None:
    """Random keys and queries would give scores of several tens there, whose rounding is no fault of a package."""
    found = verdicts(YAML.replace("head_dim: 16", "head_dim: 256\nscale: 1.0"))
    assert all(holds for holds, _ in found.values()), found


def changed(monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, bytes]], None]) -> None:
    """Let every package be built wrong."""
    right = check.specialise_package

    def wrong(*arguments: object) -> GeneratedPackage:
        package = right(*arguments)  # type: ignore[arg-type]
        sources = dict(package.sources)
        change(sources)
        assert sources != package.sources
        return GeneratedPackage(package.name, package.source, package.options, sources)

    monkeypatch.setattr(check, "specialise_package", wrong)


def test_a_wrong_offset_of_one_head(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(sources: dict[str, bytes]) -> None:
        rules = sources["pattern.py"].replace(b"None, 3, 2, 1,", b"None, 3, 1, 1,")  # as terms, and in closed form
        sources["pattern.py"] = rules.replace(b'3, (2,), "j"', b'3, (1,), "j"')

    changed(monkeypatch, change)
    monkeypatch.setattr(check, "_has_kernels", lambda: False)
    found = verdicts()
    assert found["mask", 0][0] is False and "head 2" in found["mask", 0][1]
    assert found["table", 0][0] is False and found["attention", 0][0] is False
    assert found["mask", 1][0] and found["attention", 1][0]  # the dense layer is right


def test_a_wrong_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(sources: dict[str, bytes]) -> None:
        sources["launch/requests.py"] = sources["launch/requests.py"].replace(b"LOG2_E = 1.44", b"LOG2_E = 1.34")

    changed(monkeypatch, change)
    found = verdicts()
    assert found["mask", 0][0] and found["table", 0][0] and found["attention", 0][0]
    assert found["kernel", 0][0] is False and "wrong by" in found["kernel", 0][1]
