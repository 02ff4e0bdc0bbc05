"""Lists of lengths, places and pages may have 32 or 64 bits: kernels compile for both. Triton's interpreter knows no
types of variables, so the compiler's own first step looks at them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import patterncc
from tests.codegen.shipped import TEXT, environment

pytest.importorskip("triton")

WIDE = {"*i64"}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Of the arithmetic and of the table of a pattern, the kernels that calls ask for, and the types of their lists."""
    folder = tmp_path_factory.mktemp("lists")
    orders = []
    for plan in ("closed", "table"):
        made = patterncc.compile(TEXT, output=folder / plan, plan=plan)
        about = {"folder": str(made.path), "arch": "sm_90", "target": 90}
        orders.append(about | {"jit": "typed", "calls": "wide_lists"})
    script = str(Path(__file__).with_name("stub_gpu.py"))
    command = [sys.executable, script]
    done = subprocess.run(
        command, input=json.dumps(orders), env=environment(folder / "triton"), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(("closed", "table"), (found["asked"] for found in json.loads(done.stdout)), strict=True))


@pytest.mark.parametrize("plan", ["closed", "table"])
def test_lists_of_64_bits(plan: str, seen: dict[str, list[Any]]) -> None:
    wide = {name for name, lists in seen[plan] if set(lists.values()) & WIDE}
    assert wide == {f"attn_{kernel}_small" for kernel in ("fwd", "bwd_dq", "bwd_dkdv", "sinks")}
    decoding = [lists for name, lists in seen[plan] if name == "attn_fwd_small" and lists["pages"] in WIDE]
    assert len(decoding) > 2 and all(lists["kv_starts"] in WIDE for lists in decoding)
