"""The packages of the gpu suite: which patterns, and one call that compiles them all into a folder to take along."""

from __future__ import annotations

import sys
from pathlib import Path

LOCAL_TOKENS = 512  # the ancestor's benchmark: window of 512 tokens, one block in 16

CASES: dict[str, dict[str, int]] = {
    "ancestor": {"heads": 16, "head_dim": 128, "block": 64, "stride": 16},
    "block16": {"heads": 16, "head_dim": 128, "block": 16, "stride": 16},
    "block32": {"heads": 16, "head_dim": 128, "block": 32, "stride": 16},
    "block128": {"heads": 16, "head_dim": 128, "block": 128, "stride": 16},
    "dim64": {"heads": 16, "head_dim": 64, "block": 64, "stride": 16},
    "dim256": {"heads": 16, "head_dim": 256, "block": 64, "stride": 16},
    "grouped": {"heads": 32, "kv_heads": 8, "head_dim": 128, "block": 64, "stride": 16},
    "mixed": {"heads": 16, "head_dim": 128, "block": 64, "stride": 16, "dense_heads": 2},
    "thin": {"heads": 16, "head_dim": 128, "block": 64, "stride": 64},
    "toy": {"heads": 2, "head_dim": 16, "block": 16, "stride": 4},
}


def local_blocks(case: str) -> int:
    return 2 if case == "toy" else LOCAL_TOKENS // CASES[case]["block"]


def prepare(folder: Path) -> None:
    """Compile every case; `folder` then holds packages that need only torch and triton."""
    import tempfile

    import patterncc
    from benchmarks.patterns import strided, written

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        for case, facts in CASES.items():
            text = strided(name=f"bench_{case}", local=local_blocks(case), **facts)
            patterncc.compile(written(text, Path(name)), output=folder)
            print(f"bench_{case}", file=sys.stderr)
    print(folder)
