"""The whole package passes the strict type check that `python3 run.py types` runs, in the environment of the tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("basedpyright", reason="needs basedpyright")

ROOT = Path(__file__).parent.parent


def test_types_are_right_and_a_mistake_is_seen(tmp_path: Path) -> None:
    """One run over the package and, as negative control, a file beside it with an unused import, which only the strict
    check finds."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from __future__ import annotations\n\nimport json\n")
    package = ROOT / "patterncc"
    command = [sys.executable, "-m", "basedpyright", "--outputjson", str(package), str(wrong)]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout)
    places = [
        f"{Path(found['file']).name}:{found['range']['start']['line'] + 1}: {found['message']}"
        for found in report["generalDiagnostics"]
    ]
    assert len(places) == 1 and places[0].startswith("wrong.py:3: "), "\n".join(places)
    assert report["summary"]["filesAnalyzed"] > len(list(package.rglob("*.py")))
