"""Interrupts, pipes, terminals, encodings and the shell's completion."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from patterncc.cli import output
from tests.cli.shell import ROOT, Shell


def test_an_interrupt_is_quiet(patterncc: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("patterncc.cli.list.shipped", interrupt)
    assert patterncc("list", code=130) == "" and patterncc.err == "interrupted\n"


COMMANDS = (
    "verify all s2_hybrid",
    "compile demo phi3_small -o out --force",
    "suggest --heads 32 --kv-heads 8 --layers 32 -n 128k -o s.yaml --plot p.svg",
    "show gemma3 -o x.svg",
    "table phi3_small -n 512k -o t.npz",
    "export s2_strided --to flex -n 2048 -o ex",
)
AT = """
import sys, threading, time, _thread
from patterncc.cli import main
seconds = float(sys.argv.pop(1))
def interrupt():
    while "patterncc.cli.run" not in sys.modules:  # main has begun
        time.sleep(0.001)
    time.sleep(seconds)
    _thread.interrupt_main()
threading.Thread(target=interrupt, daemon=True).start()
sys.exit(main())
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_an_interrupt_at_any_moment(command: str, tmp_path: Path) -> None:
    """130 and one line, or the command was done; nothing is half written."""
    for seconds in (0.0, 0.3):
        folder = tmp_path / str(seconds)
        folder.mkdir()
        env = os.environ | {"PATTERNCC_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
        arguments = [sys.executable, "-c", AT, str(seconds), *command.split()]
        done = subprocess.run(arguments, cwd=folder, env=env, capture_output=True, text=True)
        if "_get_module_lock" in done.stderr:
            continue  # Python's own import has dropped it
        assert done.returncode in (130, 0, 1) and "Traceback" not in done.stderr, done.stderr
        if done.returncode == 130:
            assert done.stderr.endswith("interrupted\n") and done.stderr.count("interrupted") == 1
        for file in folder.iterdir():
            assert not file.name.startswith(".") and (file.is_dir() or file.stat().st_size > 0)


@pytest.mark.parametrize(
    ("command", "first"), [("table phi3_small -n 60000", "0: 0"), ("show phi3_small s2_hybrid --overview", None)]
)
def test_a_closed_pipe_is_quiet(command: str, first: str | None) -> None:
    command = f"{sys.executable} -m patterncc {command} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    line, code = done.stdout.splitlines()
    assert code == "141" and done.stderr == ""
    assert first is None or line == first


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that takes nothing")
@pytest.mark.parametrize(
    "arguments, code, words",
    [
        ("--help >/dev/full", 2, "cannot write the output: no space left on device"),
        ("list >/dev/full", 2, "cannot write the output: no space left on device"),
        ("table phi3_small -n 60000 --json >/dev/full", 2, "cannot write the output: no space left on device"),
        ("diff demo phi3_small >&-", 1, ""),
        ("list >&- 2>&-", 0, ""),
        ("diff demo nothing_of_the_kind 2>/dev/full", 2, ""),
        ("diff demo nothing_of_the_kind 2>&-", 2, ""),
    ],
)
def test_an_output_that_takes_nothing_is_no_fault(arguments: str, code: int, words: str) -> None:
    command = f"{sys.executable} -m patterncc {arguments}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (code, "", words)


@pytest.mark.parametrize("encoding", ["ascii:strict", "ascii:surrogateescape", "latin-1:surrogateescape"])
def test_letters_that_an_encoding_does_not_have(encoding: str) -> None:
    """A drawing has three dots in one sign; a POSIX locale gives stdout ASCII, with a rule of its own for no text."""
    command = [sys.executable, "-m", "patterncc", "show", "gemma3"]
    env = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "COLUMNS": "60"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"") and b"kept" in done.stdout


def test_too_little_memory_is_no_fault(patterncc: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise MemoryError

    monkeypatch.setattr("patterncc.cli.list.shipped", refuse)
    assert patterncc("list", code=2) == "" and "not enough memory" in patterncc.err and "help:" in patterncc.err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert output.paint("a", output.RED) == "\x1b[31ma\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.paint("a", output.RED) == "a"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert output.paint("a", output.RED) == "a"


def test_progress_is_for_those_who_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = (Terminal(), "xterm", True), (Terminal(), "dumb", False), (io.StringIO(), "xterm", False)
    for stream, kind, said in streams:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", kind)
        output.progress("compiling")
        assert bool(stream.getvalue()) is said


def test_the_shell_completes_names(fresh_cache: Path) -> None:
    environment = os.environ | {
        "_PATTERNCC_COMPLETE": "complete_bash", "COMP_WORDS": "patterncc compile phi", "COMP_CWORD": "2",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "patterncc"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["phi3_small"]


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("compile demo --plan c", ["closed"]),
        ("compile demo --dtype f", ["fp16", "fp32"]),
        ("compile demo --arch sm_90,gfx94", ["sm_90,gfx942"]),
        ("export demo --to flash", ["flashinfer", "flashmask"]),
        ("verify cov", ["coverage"]),
    ],
)
def test_the_shell_completes_values(fresh_cache: Path, words: str, completed: list[str]) -> None:
    line = f"patterncc {words}"
    environment = os.environ | {
        "_PATTERNCC_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "patterncc"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == completed


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_encoding_without_the_letters_of_a_path(tmp_path: Path, encoding: str) -> None:
    """A path may hold what stdout's encoding cannot write, or bytes that are no text at all."""
    environment = os.environ | {"PYTHONIOENCODING": f"{encoding}:strict", "PATTERNCC_CACHE_DIR": str(tmp_path / "c")}
    for folder in (b"\xc3\xa9\xe2\x82\xac", b"\xff\xfe"):
        command = [sys.executable, "-m", "patterncc", "compile", "demo", "-o", os.fsencode(tmp_path) + b"/" + folder]
        done = subprocess.run(command, env=environment, capture_output=True, cwd=ROOT)
        assert done.returncode == 0 and done.stderr == b""
        done = subprocess.run([*command, "--json"], env=environment, capture_output=True, cwd=ROOT)
        assert os.fsencode(json.loads(done.stdout)["path"]) == os.fsencode(tmp_path) + b"/" + folder + b"/demo"
