"""The entry point is harmless: without vLLM, and with one that does not fit."""

from __future__ import annotations

import logging
import subprocess
import sys
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, entry_points
from pathlib import Path
from types import SimpleNamespace

import pytest

from patterncc.errors import UsageError
from patterncc.integrations.vllm import register, registering
from patterncc.integrations.vllm.fitting import named


def test_the_entry_point_is_this_function() -> None:
    pyproject = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    assert (
        '[project.entry-points."vllm.general_plugins"]\npatterncc = "patterncc.integrations.vllm:register"' in pyproject
    )
    for point in entry_points(group="vllm.general_plugins", name="patterncc"):  # none in an older editable install
        assert point.load() is register


def test_importing_it_imports_no_vllm_and_no_torch() -> None:
    code = "import sys, patterncc.integrations.vllm; sys.exit('vllm' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("version", ["0.27.1", "0.34.0", "1.0", None])
def test_a_version_that_does_not_fit_is_logged_and_raises_only_where_asked(
    version: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def installed(_: str) -> str:
        if version is None:
            raise PackageNotFoundError("vllm")
        return version

    monkeypatch.setattr(registering, "version", installed)
    monkeypatch.setitem(sys.modules, "vllm", None)  # cannot be imported
    with caplog.at_level(logging.WARNING, logger="vllm.patterncc"):
        register()
    words = "is not installed" if version is None else f"vLLM {version} is installed; patterncc works with 0.28"
    assert words in caplog.text
    with pytest.raises(UsageError, match="pip install 'patterncc\\[vllm\\]'"):
        registering.check_version()


@pytest.mark.parametrize("version", ["0.28.0", "0.33.0", "0.33.1rc2.dev3+gabc"])
def test_versions_that_fit(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registering, "version", lambda _: version)
    registering.check_version()


@pytest.mark.parametrize(
    ("pattern", "backend", "of_kinds", "refused"),
    [
        ("s2_hybrid", None, {}, True),
        ("s2_hybrid", "FLASH_ATTN", {}, True),
        ("s2_hybrid", "CUSTOM", {}, False),
        ("s2_hybrid", None, {"full_attention": "CUSTOM"}, False),
        (None, None, {}, False),
    ],
)
def test_a_pattern_that_no_backend_reads_is_refused(
    pattern: str | None, backend: str | None, of_kinds: dict[str, str], refused: bool
) -> None:
    """vLLM computed dense attention, in silence. The engine's case `unread` is the same with vLLM."""
    attention = SimpleNamespace(backend=backend, backend_per_kind=of_kinds)
    with pytest.raises(UsageError, match="does not read: the model would be dense") if refused else nullcontext():
        registering.check_chosen(pattern, attention, "CUSTOM")


def test_who_names_a_pattern() -> None:
    """The call, else the model; a configuration of another kind than a dict names none."""
    model = SimpleNamespace(patterncc="pattern: 1")
    assert named({"patterncc": "mine"}, model) == "mine"
    assert named({}, model) == named(object(), model) == "pattern: 1"
    assert named({"other": 1}, SimpleNamespace()) is named({}, None) is None
