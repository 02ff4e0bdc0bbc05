"""`patterncc tune` and what `patterncc cache` knows of it. There is no GPU here: the CPU path computes, a clock of the
test's says how long it takes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch

import patterncc as compiler
from patterncc.cli.tune import Progress
from patterncc.runtime.cache import Cache
from tests.cli.shell import Shell

pytest.importorskip("triton")
SMALL = """\
pattern: 1
name: small
heads: 2
kv_heads: 1
head_dim: 16
block: 16
shards: [{heads: all, local: 2, stride: 4, offset: h}]
"""
FAST = "16 rows, 32 keys, 4 warps, 2 stages"


class Gpu:
    """What takes the place of a GPU for one pattern."""

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        package = compiler.load(file).__name__
        self.file, self.tuned = file, import_module(f"{package}.launch.tuned")
        tuning = import_module(f"{package}.tuning.main")
        self.best = import_module(f"{package}.launch.configs").Config(16, 32, 4, 2)
        monkeypatch.setattr(tuning, "find_device", lambda *_: torch.device("cpu"))
        monkeypatch.setattr(tuning, "GpuClock", lambda device: lambda call: self.clock(call))
        monkeypatch.setattr(tuning, "space", lambda *_: [self.best])
        self.tuned._read.clear()

    def clock(self, call: Callable[[], object]) -> float:
        call()
        [(direction, tried)] = self.tuned.tried.items()
        self.at(direction)
        return 0.001 if tried == self.best else 0.002

    def at(self, direction: str) -> None:
        """Something may happen in a direction."""


@pytest.fixture
def gpu(patterncc: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    (tmp_path / "small.yaml").write_text(SMALL)
    return Gpu(tmp_path / "small.yaml", monkeypatch)


OPTIONS = ("--dtype", "fp32", "--length", "300")


def test_results_are_printed_and_stored(patterncc: Shell, gpu: Gpu) -> None:
    lines = patterncc("tune", gpu.file, *OPTIONS).splitlines()
    table = "64 rows, 64 keys, 4 warps, 2 stages: 2 ms"
    for direction, said, path in zip(("forward", "decode", "dq", "dkdv"), lines[::2], lines[1::2], strict=True):
        assert said == f"{direction}: {FAST}: 1 ms (table: {table}); 2 measured"
        assert Path(path.strip()).is_file()
    told = patterncc.err.splitlines()
    assert told[0] == "small on Triton's interpreter: fp32, 300 tokens, batch 1"
    assert told[2] == f"forward 2/6: {FAST}: 1 ms" and len(told) == 1 + 4 * 6
    assert gpu.tuned.forward(torch.zeros(1), 99) == gpu.best


def test_json(patterncc: Shell, gpu: Gpu) -> None:
    text = patterncc("tune", gpu.file, *OPTIONS, "--batch", "2", "--only", "dq,decode", "--json")
    assert text.count("\n") == 1
    document = json.loads(text)
    results = document.pop("results")
    assert document == {
        "name": "small",
        "digest": getattr(Cache.of_user().latest("small"), "digest", None),
        "device": "Triton's interpreter",
        "arch": "interpreter",
        "dtype": "fp32",
        "length": 300,
        "batch": 2,
    }
    tiles = {"rows": 16, "keys": 32, "warps": 4, "stages": 2}
    table = {"rows": 64, "keys": 64, "warps": 4, "stages": 2}
    for direction, result in zip(("dq", "decode"), results, strict=True):
        assert Path(result.pop("path")).is_file()
        times = {"seconds": 0.001, "table_seconds": 0.002, "measured": 2, "skipped": {}}
        assert result == {"direction": direction, "config": tiles, "table": table, **times}


def test_what_is_not_to_be_measured_is_said(patterncc: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wide.yaml").write_text(SMALL.replace("heads: 2", "heads: 32").replace("offset: h", "offset: 0"))
    many = Gpu(tmp_path / "wide.yaml", monkeypatch)
    assert patterncc("tune", many.file, *OPTIONS, "--only", "decode") == ""
    assert "decode: nothing to measure" in patterncc.err


@pytest.mark.parametrize("moment", [0, 1, 2])
def test_an_interruption(moment: int, patterncc: Shell, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured whole is stored, printed and named; the rest is not; 130, as everywhere."""
    order = ("forward", "decode", "dq")

    def interrupt(direction: str) -> None:
        if direction == order[moment]:
            raise KeyboardInterrupt

    monkeypatch.setattr(gpu, "at", interrupt)
    out = patterncc("tune", gpu.file, *OPTIONS, code=130)
    known = order[:moment]
    assert [line.partition(":")[0] for line in out.splitlines()[::2]] == list(known)
    assert f"interrupted: {', '.join(known) or 'nothing'} stored; what was not" in patterncc.err
    assert sorted(file.read()["facts"]["direction"] for file in Cache.of_user().tuned()) == sorted(known)


def test_faults_of_use(patterncc: Shell, fresh_cache: Path) -> None:
    for arguments, said in (
        (["s2_hybrd"], "did you mean s2_hybrid?"),
        (["demo", "--dtype", "fp8"], "--dtype is 'fp8'; it takes fp32, fp16, bf16"),
        (["demo", "--only", "forward,decod"], "did you mean decode?"),
        (["demo", "--only", ","], "--only is ''; it takes forward, decode, dq, dkdv"),
        (["demo", "--length", "many"], "--length is `many`"),
        (["demo", "--batch", "0"], "--batch is 0; it takes 1 to 8191"),
        (["demo", "--batch", "9999"], "--batch is 9999; it takes 1 to 8191"),
        (["demo", "--batch", "x"], "invalid value for '--batch'"),
        (["demo", "--lenght", "5"], "did you mean --length?"),
        ([], "missing argument"),
    ):
        assert patterncc("tune", *arguments, code=2) == ""
        assert said in patterncc.err.lower() if said.islower() else said in patterncc.err, patterncc.err
    assert not (fresh_cache / "tuned").exists()


def test_a_mistake_in_the_file_comes_first(patterncc: Shell, tmp_path: Path) -> None:
    (tmp_path / "mistaken.yaml").write_text(SMALL.replace("block: 16", "block: 60"))
    assert patterncc("tune", tmp_path / "mistaken.yaml", code=2) == "" and "block is 60" in patterncc.err


def test_without_a_gpu(patterncc: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert patterncc("tune", "s2_hybrid", code=2) == ""
    first, second = patterncc.err.splitlines()
    assert first.startswith(f"tuning needs a GPU, and torch {torch.__version__} ")
    assert second.startswith("  help: ") and "python -m s2_hybrid.tuning" in second


@pytest.mark.parametrize("missing", ["torch", "triton"])
def test_without_what_it_needs(missing: str, fresh_cache: Path) -> None:
    script = (
        f"import sys; sys.modules[{missing!r}] = None; from patterncc.cli import main; sys.exit(main(['tune', 'demo']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"tuning needs {missing}, which is not installed here" in done.stderr and "  help: " in done.stderr


def test_a_cache_that_takes_no_writes(patterncc: Shell, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gpu.tuned.tempfile, "TemporaryDirectory", full)
    assert patterncc("tune", gpu.file, *OPTIONS, code=2) == ""
    assert "cannot write to the cache" in patterncc.err and "No space left" in patterncc.err
    assert "PATTERNCC_CACHE_DIR" in patterncc.err


def test_the_bar_of_a_terminal(monkeypatch: pytest.MonkeyPatch, gpu: Gpu) -> None:
    """It is wiped again, and what is printed on stdout meanwhile does not land in it."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    progress, step = Progress(), import_module(f"{gpu.tuned.__package__.removesuffix('launch')}tuning.search").Step
    progress(step("forward", 1, 2, gpu.best, 0.001))
    out = sys.stdout
    progress(step("forward", 2, 2, gpu.best, "compute wrongly"))
    assert sys.stdout is out and progress.bar is not None
    progress.end()
    progress.end()
    assert progress.bar is None and "2/2" in terminal.getvalue() and "\x1b" in terminal.getvalue()


def test_the_cache_knows_of_results(patterncc: Shell, gpu: Gpu) -> None:
    patterncc("tune", gpu.file, *OPTIONS, "--only", "forward,dq")
    listed = patterncc("cache", "ls")
    assert "small" in listed and "2.00x" in listed and "Triton's interpreter" in listed
    assert "1 package and 2 tuned results in" in patterncc.err
    documents = json.loads(patterncc("cache", "ls", "--json"))
    assert [d["name"] for d in documents] == ["small"] * 3
    assert sorted(d["facts"]["direction"] for d in documents[1:]) == ["dq", "forward"]
    assert patterncc("cache", "verify") == "1 of 1 package is whole\n2 of 2 tuned results are whole\n"
    file = Cache.of_user().tuned()[0]
    file.path.write_text(file.path.read_text().replace('"rows": 16', '"rows": 32'))
    said = patterncc("cache", "verify", code=1)
    assert f"tuned {file.path.name}: it was changed" in said and "1 of 2 tuned results is whole" in said
    assert "damaged" in patterncc("cache", "ls")
    damage = [d["damage"] for d in json.loads(patterncc("cache", "verify", "--json", code=1))]
    assert sorted(map(str, damage)) == ["None", "None", "it was changed"]
    assert patterncc("cache", "clear", "other") == "removed 0 packages\n"
    assert patterncc("cache", "clear", "small") == "removed 1 package and 1 tuned result\n"
    assert patterncc("cache", "clear") == "removed 0 packages and 1 tuned result\n"
    assert Cache.of_user().tuned() == []


def test_a_result_of_another_version_is_named_as_such(patterncc: Shell, gpu: Gpu) -> None:
    patterncc("tune", gpu.file, *OPTIONS, "--only", "dq")
    [file] = Cache.of_user().tuned()
    file.path.write_text(json.dumps({**json.loads(file.path.read_text()), "format": 7}))
    assert "format 7 is another version's" in patterncc("cache", "verify", code=1)
