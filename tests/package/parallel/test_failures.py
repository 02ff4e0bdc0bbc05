"""Ranks that hold nothing, and ranks that fail: three processes in gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise, product
from pathlib import Path

import pytest

import patterncc
from patterncc.runtime.gallery import shipped
from tests.package.parallel.split_failing import FAILURES, RANKS, SPLITS

TEXT = """\
pattern: 1
name: split
heads: 4
kv_heads: 2
head_dim: 32
block: 16
shards: [{heads: 0-2, local: 20 tokens, stride: 3, offset: h}, {heads: 3, dense: true}]
"""
SECONDS = 30  # a rank that waits looks five times a second; the rest is for a busy machine


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each rank wrote down."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "split.yaml").write_text(TEXT)
    patterncc.compile(folder / "split.yaml", output=folder)
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("split_failing.py")), str(folder)]
    ranks = [
        subprocess.Popen([*command, str(rank)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(RANKS)
    ]
    try:
        said = [rank.communicate(timeout=240)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 9, 0], said
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.parametrize("number", range(len(SPLITS)), ids=lambda n: str(SPLITS[n]))
def test_ranks_that_hold_nothing(found: list[dict], number: int) -> None:
    """Output, LSE and gradients are those of one process, on every rank; the errors are of fp32 sums."""
    assert max(rank["errors"][number] for rank in found) <= 2e-6


@pytest.mark.parametrize(
    ("failure", "first", "others"),
    [
        ("wrong keys", "ValueError: rank 1 of the plan holds k and v", "It says: ValueError: rank 1 of the plan holds"),
        ("wrong queries", "ValueError: heads 0 to 1 of split read 1 KV head", "It says: ValueError: heads 0 to 1 of"),
        ("ended", "", "if one of them has failed or ended"),
    ],
)
def test_a_rank_that_fails_takes_the_others_down(found: list[dict], failure: str, first: str, others: str) -> None:
    for rank, of in enumerate(found):
        if rank == 1:
            assert first == "" or of[failure][0].startswith(first)
        else:
            said, seconds = of[failure]
            assert said.startswith("Failed: split: rank ") and others in said, said
            assert seconds < SECONDS
    assert set(FAILURES) <= set(found[0])


def test_every_length_and_number_of_ranks_has_a_plan() -> None:
    """All tokens once, whole blocks but at the end, and keys that begin with a block where there are any."""
    package = patterncc.load(shipped()["s2_hybrid"])
    for length, ranks in product((0, 1, 64, 65, 200, 1050), (1, 2, 3, 8, 33)):
        plan = package.exchange_plan(length, ranks)
        held = [plan.queries(rank) for rank in range(ranks)]
        assert held[0][0] == 0 and held[-1][1] == length
        assert all(a[1] == b[0] for a, b in pairwise(held))
        for rank, (first, stop) in enumerate(held):
            low, high = plan.keys(rank)
            assert low <= first <= stop <= high <= length
            assert low % 64 == 0 or low == high
            assert first < stop or not any(map(len, plan.needs[rank]))
