"""What a call costs Python, and that a launch without Triton's own work hands on what Triton would have: on a stub of
NVIDIA's driver."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import patterncc
from tests.benchmarks.conftest import ROOT
from tests.benchmarks.stub.build import HERE as STUB
from tests.benchmarks.stub.build import driver

BOXED = """\
pattern: 1
name: bench_boxed
heads: 2
kv_heads: 1
head_dim: 64
block: 16
layers: 3
shards: [{heads: all, local: 4, stride: 16}]
dense_layers: 1
"""
# Functions entered in a call: a quarter more than were counted when it was made fast. Triton's own launch costs more,
# and so does an operator of torch.
MOST = {"attention": 96, "attention_varlen": 114, "decode": 136, "forward for training": 128, "backward": 163}
MOST |= {"KVCache.step": 285}


@pytest.fixture(scope="module")
def found(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return launched(prepared, tmp_path_factory)


def launched(prepared: Path, tmp_path_factory: pytest.TempPathFactory, *more: str) -> dict[str, Any]:
    """What `launched.py` prints."""
    if not shutil.which("gcc") or sys.platform != "linux":
        pytest.skip("Triton's launcher needs gcc")
    place = str(driver(tmp_path_factory.mktemp("stub")).parent)
    paths = {"TRITON_LIBCUDA_PATH": place, "LD_LIBRARY_PATH": place, "PYTHONPATH": f"{STUB}:{ROOT}"}
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    packages = prepared / "packages"
    patterncc.compile(BOXED, output=packages)
    command = [sys.executable, str(Path(__file__).parent / "launched.py"), str(packages), "bench_boxed", *more]
    environment |= paths | {"STUB_LAUNCHES": os.devnull}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_only_what_is_alike_is_launched_without_triton(found: dict[str, Any]) -> None:
    kinds = found["kinds"]
    assert kinds["first"] and not kinds["again"] and kinds["the same"]
    assert not kinds["another length"] and not kinds["again after it"] and not kinds["unwatched"]
    assert kinds["not aligned"] and kinds["more than 32 bits"] and kinds["watched"]
    assert not kinds["other numbers"]  # negative control: what is handed on is seen


def test_a_call_like_one_before_launches_the_same(found: dict[str, Any]) -> None:
    again = found["again"]
    differing = again.pop("another scale"), again.pop("other strides")
    assert all(again.values()), again
    assert not any(differing)  # negative controls: what differs is seen


def test_a_call_with_descriptors_launches_the_same(found: dict[str, Any]) -> None:
    boxed = found["boxed"]
    assert not boxed.pop("other strides")  # negative control
    assert all(boxed.values()), boxed


@pytest.mark.slow
def test_a_backward_with_descriptors_launches_the_same(
    prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    boxed = launched(prepared, tmp_path_factory, "trains")["boxed"]
    assert boxed["backward"] and boxed["its descriptors"] and boxed["varlen backward"], boxed


@pytest.mark.parametrize("call", MOST)
def test_a_call_enters_few_functions(call: str, found: dict[str, Any]) -> None:
    assert 0 < found["counts"][call] <= MOST[call], found["counts"]


def test_a_step_of_a_cache_is_two_launches(found: dict[str, Any]) -> None:
    """One that puts the token where a place is free and one that attends, and memory: 96 operators did the same."""
    assert found["counts"]["its launches"] == 2 and found["counts"]["its operators"] <= 4, found["counts"]
