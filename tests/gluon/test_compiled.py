"""The Hopper kernels as the compiler leaves them: products and copies of sm_90, no waits that it adds, no spills in
loops."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from patterncc.codegen.resources import quiet_environment
from tests.gluon.test_forward import HEAD, RULES
from tests.kernels.held import held, quick

SHARED = 232448  # bytes that a program may have
OTHER = "PATTERNCC_TEST_TRITON"  # a folder with another version of Triton, to compile with that one too
WIDE = HEAD.replace("head_dim: 64", "head_dim: 128") + "shards: [{heads: all, local: 8, stride: 16, offset: h}]"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "usual": (WIDE, {}),
    "half": (WIDE, {"dtype": "fp16"}),
    "block 16": (WIDE.replace("block: 64", "block: 16"), {}),
    "block 128": (WIDE.replace("block: 64", "block: 128"), {}),
    "dim 64": (RULES["strided"], {}),
    "tokens": (RULES["tokens"].replace("head_dim: 64", "head_dim: 128"), {}),
    "varlen": (WIDE, {"IS_PACKED": True}),
    "small": (RULES["strided"].replace("block: 64", "block: 16"), {"IS_PACKED": True}),
    "paged": (WIDE, {"PAGE": 16}),
}
MOST_STACK = {"3.6": 32, "3.9": 128}  # bytes a thread: numbers kept from tile to tile, and in the edge
VERSIONS = ["", *([os.environ[OTHER]] if OTHER in os.environ else [])]


def compiled(text: str, options: dict[str, Any], triton: str) -> dict[str, Any]:
    folder = Path(held(text).package.__file__ or "").parent
    environment = quiet_environment()
    root = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [triton, root, environment["PYTHONPATH"]]))
    command = [sys.executable, "-W", "ignore", "-m", "tests.gluon.compiled", str(folder), json.dumps(options)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-9000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("version", VERSIONS, ids=lambda v: "other triton" if v else "triton")
@pytest.mark.parametrize("case", quick(CASES, "small"))
def test_forward_as_compiled(case: str, version: str) -> None:
    found = compiled(*CASES[case], version)
    assert not found["warnings"], found["warnings"]
    assert found["products"] and found["loads"] and found["registers set"] and found["wide stores"], found
    assert found["shared"] <= SHARED
    assert found["spills in the far loop"] == 0
    assert found["stack"] <= MOST_STACK[found["triton"][:3]], found
