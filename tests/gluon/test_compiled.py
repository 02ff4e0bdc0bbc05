"""The Hopper kernels as the compiler leaves them: products and copies of sm_90, no waits that it adds, no spills in
loops."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from patterncc.codegen.resources import quiet_environment
from tests.gluon.test_forward import HEAD, RULES
from tests.kernels.held import held, quick
from tests.tritons import both_versions

SHARED = 232448  # bytes that a program may have
WIDE = HEAD.replace("head_dim: 64", "head_dim: 128") + "shards: [{heads: all, local: 8, stride: 16, offset: h}]"
LARGE, WIDER = WIDE.replace("head_dim: 128", "head_dim: 256"), {"file": "forward_wide"}
TABLE = HEAD.replace("head_dim: 64", "head_dim: 128") + "shards: [{heads: all, local: 1, random: {blocks: 2, seed: h}}]"
TOKENS = TABLE.replace("local: 1", "local: 100 tokens, sink: 5 tokens")
FINE = {"EVERY": 0}  # no class of theirs has a stride
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
    "dim 80": (WIDE.replace("head_dim: 128", "head_dim: 80"), {}),
    "dim 256": (LARGE, WIDER),
    "dim 256, half, paged": (LARGE, WIDER | {"dtype": "fp16", "PAGE": 16}),
    "dim 256, block 16": (LARGE.replace("block: 64", "block: 16"), WIDER | {"IS_PACKED": True}),
    "dim 256, tokens": (RULES["tokens"].replace("head_dim: 64", "head_dim: 256"), WIDER),
    "table": (TABLE, {}),
    "table, block 16": (TABLE.replace("block: 64", "block: 16"), FINE),
    "table, tokens": (TOKENS.replace("block: 64", "block: 16"), FINE),
    "table, dim 64": (TABLE.replace("head_dim: 128", "head_dim: 64").replace("block: 64", "block: 16"), FINE),
    "table, packed": (TABLE, {"IS_PACKED": True}),
    "table, paged": (TABLE, {"PAGE": 16}),
    "table, dim 256": (TABLE.replace("head_dim: 128", "head_dim: 256"), WIDER),
    "table, dim 256, block 16": (
        TABLE.replace("head_dim: 128", "head_dim: 256").replace("block: 64", "block: 16"),
        WIDER | FINE | {"IS_PACKED": True},
    ),
}
DQ, DKDV = {"file": "backward_dq"}, {"file": "backward_dkdv"}
FUSED = {"file": "backward_fused"}
LISTS = DKDV | {"HAS_STRIDES": False, "CONSUMER_REGISTERS": 240, "PRODUCER_REGISTERS": 24}
PACKED_LISTS = LISTS | {"IS_PACKED": True}
ROUND = {"IS_PACKED": True, "HAS_STRIDES": False, "sums": "fp32"}
BACKWARD: dict[str, tuple[str, dict[str, Any]]] = {
    "dq, usual": (WIDE, DQ),
    "dq, half": (WIDE, DQ | {"dtype": "fp16"}),
    "dq, block 16": (WIDE.replace("block: 64", "block: 16"), DQ | {"IS_PACKED": True}),
    "dq, tokens": (RULES["tokens"].replace("head_dim: 64", "head_dim: 128"), DQ),
    "dq, small": (RULES["strided"], DQ),
    "dq, table": (TABLE, DQ),
    "dq, table, block 16": (TABLE.replace("block: 64", "block: 16"), DQ | FINE | {"IS_PACKED": True}),
    "dq, table, tokens": (TOKENS, DQ),
    "dkdv, usual": (WIDE, DKDV),
    "dkdv, half": (WIDE, DKDV | {"dtype": "fp16"}),
    "dkdv, block 16": (WIDE.replace("block: 64", "block: 16"), DKDV),
    "dkdv, tokens": (RULES["tokens"].replace("head_dim: 64", "head_dim: 128"), DKDV),
    "dkdv, varlen, near": (WIDE, DKDV | ROUND),
    "dkdv, varlen, stride": (WIDE, DKDV | ROUND | {"HAS_NEAR": False, "HAS_STRIDES": True}),
    "dkdv, small": (RULES["strided"], DKDV),
    "dkdv, table": (TABLE, LISTS),
    "dkdv, table, half": (TABLE, LISTS | {"dtype": "fp16"}),
    "dkdv, table, tokens": (TOKENS, LISTS),
    "dkdv, table, block 16": (TABLE.replace("block: 64", "block: 16"), LISTS),
    "dkdv, table, tokens, block 16": (TOKENS.replace("block: 64", "block: 16"), LISTS),
    "dkdv, table, varlen": (TOKENS, PACKED_LISTS),
    "dkdv, table, varlen, block 16": (
        TOKENS.replace("block: 64", "block: 16"),
        PACKED_LISTS | {"CONSUMER_REGISTERS": 232, "PRODUCER_REGISTERS": 40},
    ),
    "fused, usual": (WIDE, FUSED),
    "fused, half": (WIDE, FUSED | {"dtype": "fp16"}),
    "fused, block 16": (WIDE.replace("block: 64", "block: 16"), FUSED),
    "fused, tokens": (RULES["tokens"].replace("head_dim: 64", "head_dim: 128"), FUSED),
    "fused, small": (RULES["strided"], FUSED),
    "fused, table, tokens, block 16": (TOKENS.replace("block: 64", "block: 16"), FUSED),
    "dkdv, table, small": (TOKENS.replace("head_dim: 128", "head_dim: 64"), DKDV | {"HAS_STRIDES": False}),
}
# Bytes of a thread's stack, and spills in the far loops.
MOST = {
    "forward": {"3.6": (0, 0), "3.9": (24, 0)},
    "forward_wide": {"3.6": (0, 0), "3.9": (0, 0)},
    "backward": {"3.6": (0, 0), "3.9": (0, 0)},
}
# What is left of the fused backward: numbers that are worked out once from a thread's place, and what is spilled where
# tokens are masked, in the one loop for all slots.
LEFT = {
    "fused, usual": {"3.6": (8, 0), "3.9": (32, 0)},
    "fused, half": {"3.6": (8, 0), "3.9": (32, 0)},
    "fused, block 16": {"3.6": (8, 0), "3.9": (32, 0)},
    "fused, small": {"3.6": (0, 0), "3.9": (32, 0)},
    "fused, tokens": {"3.6": (8, 0), "3.9": (88, 32)},
    "fused, table, tokens, block 16": {"3.6": (16, 0), "3.9": (72, 17)},
}


def compiled(text: str, options: dict[str, Any]) -> dict[str, Any]:
    folder = Path(held(text).package.__file__ or "").parent
    command = [sys.executable, "-W", "ignore", "-m", "tests.gluon.compiled", str(folder), json.dumps(options)]
    done = subprocess.run(command, env=quiet_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@both_versions
@pytest.mark.parametrize("case", quick(CASES, "usual", "block 16", "small", "paged", "dim 256", "table, block 16"))
def test_forward_as_compiled(case: str, triton: str) -> None:
    found = compiled(*CASES[case])
    assert not found["warnings"], found["warnings"]
    assert found["products"] and found["loads"] and found["registers set"] and found["wide stores"], found
    assert found["shared"] <= SHARED
    check_spills(found, MOST[str(CASES[case][1].get("file", "forward"))])
    # what consumers need of a tile they are told; rules of tokens are looked up where a slot is masked
    assert "tokens" in case or found["loads by consumers"] == 0


@both_versions
@pytest.mark.parametrize(
    "case",
    quick(
        BACKWARD,
        "dq, usual",
        "dq, table, block 16",
        "dkdv, usual",
        "dkdv, block 16",
        "fused, usual",
        "dkdv, small",
        "dkdv, table, tokens, block 16",
    ),
)
def test_backward_as_compiled(case: str, triton: str) -> None:
    found = compiled(*BACKWARD[case])
    assert not found["warnings"], found["warnings"]
    assert found["products"] and found["loads"] and found["registers set"], found
    assert found["wide stores"] or "sums" in BACKWARD[case][1]
    assert "dkdv" not in case or [loop["scores ahead"] for loop in found["far loops"]] == [True, True]
    assert found["shared"] <= SHARED
    check_spills(found, LEFT.get(case, MOST["backward"]))


def check_spills(found: dict[str, Any], most: dict[str, tuple[int, int]]) -> None:
    stack, in_loop = most[found["triton"][:3]]
    assert found["stack"] <= stack, found
    assert found["spills in the far loop"] <= in_loop, found
