"""Every command: what it prints, where, and with which exit code."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from patterncc import cli, language
from patterncc.cli import codes, run
from patterncc.runtime.gallery import shipped
from tests.cli.shell import ROOT, Shell

SUGGEST = ("suggest", "-n", "99", "--heads", "8", "--layers", "8")


def test_help_is_the_file_and_the_file_is_what_typer_says(
    patterncc: Shell, monkeypatch: pytest.MonkeyPatch, update_golden: bool
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(cli, "HELP", "/none")  # whoever reads it here
    monkeypatch.setattr(cli, "_is_wide", lambda: False)
    said = patterncc("--help")
    monkeypatch.undo()
    if update_golden:
        Path(cli.HELP).write_text(said)
    assert Path(cli.HELP).read_text() == patterncc("-h")
    assert sorted(said.splitlines()) == sorted(patterncc("-h").splitlines())  # older typers sort the commands
    commands = ("compile", "verify", "tune", "table", "show", "forecast", "diff", "list", "schema", "cache")
    assert all(f"\n  {command} " in said for command in commands)
    assert "...\n" not in said.partition("\n")[2]  # a sentence that was cut


@pytest.mark.parametrize(
    "command", ["compile", "verify", "tune", "table", "show", "forecast", "diff", "list", "cache", "cache ls"]
)
def test_every_command_has_help(patterncc: Shell, command: str) -> None:
    assert patterncc(*command.split(), "--help").startswith(f"Usage: patterncc {command}")


def test_help_imports_next_to_nothing() -> None:
    heavy = ["typer", "click", "torch", "numpy", "pydantic", "yaml", "rich", "dataclasses", "re"]
    script = "import sys; from patterncc.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-S", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(heavy) & set(done.stderr.split()) and done.stdout.startswith("Usage")


def test_version(patterncc: Shell) -> None:
    assert patterncc("--version").startswith("patterncc 0.")


def test_compile(patterncc: Shell, tmp_path: Path) -> None:
    document = patterncc.json("compile", "demo")
    assert set(document) == {"name", "digest", "path", "cached", "plan", "kernels"}
    assert (document["name"], document["plan"], document["cached"], document["kernels"]) == (
        "demo",
        "closed",
        False,
        [],
    )
    assert (Path(document["path"]) / "manifest.json").is_file() and patterncc.json("compile", "demo")["cached"]
    several = patterncc.json("compile", "demo", "ranges", "--plan", "table", "-o", tmp_path)
    assert [d["name"] for d in several] == ["demo", "ranges"] and {d["plan"] for d in several} == {"table"}
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir() and path.name != "cache") == [
        "demo",
        "ranges",
    ]
    assert f"  {tmp_path}/demo" in patterncc("compile", "demo", "-o", tmp_path) and patterncc.err == ""
    (tmp_path / "demo" / "pattern.py").write_text("mine")
    patterncc("compile", "demo", "-o", tmp_path, code=2)
    assert "demo was edited since patterncc wrote it: pattern.py was changed" in patterncc.err
    assert (tmp_path / "demo" / "pattern.py").read_text() == "mine"
    patterncc("compile", "demo", "-o", tmp_path, "--force")
    assert "NAME = " in (tmp_path / "demo" / "pattern.py").read_text()


def test_mistakes(patterncc: Shell, mistaken: Path, broken: Path) -> None:
    out = patterncc("compile", mistaken, "demo", broken, code=2)  # the rest is compiled all the same
    assert "demo: index maps as arithmetic" in out
    for words in (f"{mistaken}:3:1: unknown key `head`", "did you mean heads?", "block is 60", "coverage is promised"):
        assert words in patterncc.err
    assert "\x1b" not in patterncc.err
    for command in (["verify", "rows"], ["table", "-n", "9"], ["show"], ["forecast", "-n", "9"], ["diff", "demo"]):
        assert patterncc(*command, mistaken, code=2) == "" and "block is 60" in patterncc.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["verfy", "rows"], "did you mean verify?"),
        (["compile", "demo", "--jsno"], "did you mean --json?"),
        (["compile", "demmo"], "did you mean demo?"),
        (["compile"], "missing argument 'PATTERN"),
        (["compile", "demo", "--plan", "tabel"], "did you mean table?"),
        (["compile", "demo", "--dtype", "bf61"], "did you mean bf16?"),
        (["compile", "demo", "--arch", "sm_08"], "did you mean sm_80?"),
        (["compile", "demo", "--arch", "sm_75"], "help: the kernels need an NVIDIA GPU of sm_80 or newer"),
        (["compile", "demo", "--arch", ","], "--arch is ''"),
        (["compile", "bigbird", "--plan", "closed"], "has no closed form"),
        (["verify", "covrage", "demo"], "did you mean coverage?"),
        (["verify"], "missing argument 'PROPERTY'"),
        (["table", "demo"], "missing option '--length'"),
        (["table", "demo", "-n", "abc"], "--length is `abc`"),
        (["table", "demo", "-n", "1e9"], "--length is `1e9`"),
        (["table", "demo", "-n", "-5"], "--length is -5"),
        (["table", "demo", "-n", "0"], "--length is 0"),
        (["table", "demo", "-n", str(10**18)], "--length is 1,000,000,000,000,000,000"),
        (["table", "demo", "-n", "9" * 5000], "--length is"),
        (["table", "phi3_small", "-n", "2147483647"], "a table of"),
        (["table", "phi3_small", "-n", "64m", "--layer", "1"], "a table of"),
        (["table", "demo", "-n", "99", "--layer", "2"], "--layer is 2; demo has layers 0 to 1"),
        (["table", "demo", "-n", "99", "--head", "-1"], "--head is -1"),
        (["table", "demo", "-n", "99", "-o", "x.npy"], "ends in .npz"),
        (["table", "demo", "-n", "99", "-o", "/nowhere/x.npz"], "cannot write"),
        (["show", "demo", "--head", "4"], "--head is 4; demo has heads 0 to 3"),
        (["show", "demo", "-o", "x.jpeg"], "cannot draw"),
        (["show", "demo", "s2_strided", "-o", "x.jpeg"], "cannot draw"),
        (["show", "demo", "s2_strided", "--head", "9"], "--head is 9; demo has heads 0 to 3"),
        (["show", "s2_strided", "demo", "--layer", "1"], "--layer is 1; s2_strided has layer 0 only"),
        (["show", "demo", "demo", "demo"], "show takes one pattern, or two to see side by side, not 3"),
        (["show", "demo", "--overview", "--union"], "--overview shows every head of every layer"),
        (["show", "demo", "-o", "/nowhere/x.svg"], "cannot write"),
        (["forecast", "demo", "-n", str(10**18)], "--length is"),
        (["forecast", "demo", "-n", "99", "--dtype", "bf17"], "did you mean bf16?"),
        (
            ["forecast", "demo", "-n", "99", "--dtype", "fp64"],
            "fp16, float16, fp8, int8\n",
        ),
        (["compile", "demo", "--dtype", "fp64"], "--dtype is 'fp64'; it takes fp32, fp16, bf16\n"),
        (["forecast", "demo", "-n", "99", "--devices", "0"], "--devices is 0"),
        (["forecast", "demo", "-n", "99", "--json", "--csv"], "give one, not both"),
        (["verify", "rows", "demo", "--junit", "/nowhere/x.xml"], "cannot write"),
        (["show", "demo", "--union", "--head", "1"], "--union counts the heads that keep a block: leave out --head"),
        (["forecast", "demo", "-n", "99", "--memory", ""], "--memory is ``"),
        ([*SUGGEST, "--kv-budget", ""], "--kv-budget is ``"),
        ([*SUGGEST, "--batch", "0"], "it takes 1 to 1,048,576"),
        ([*SUGGEST, "--arch", "sm90"], "did you mean sm_90?"),
        ([*SUGGEST, "--arch", "sm_90,sm_80"], "one GPU at a time"),
        ([*SUGGEST, "--head-dim", "1024"], "--head-dim is 1024; it takes 1 to 512"),
        (["suggest", "-n", "99", "--heads", "4096", "--layers", "4096"], "16,777,216; a pattern has 65,536 at most"),
        (["cache", "lst"], "did you mean ls?"),
    ],
)
def test_a_wrong_usage_is_named_and_gets_a_hint(patterncc: Shell, arguments: list[str], words: str) -> None:
    patterncc(*arguments, code=2)
    assert words.lower() in patterncc.err.lower() and "fault of patterncc" not in patterncc.err


def test_show(patterncc: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not kept" in patterncc("show", "demo", "--head", "1")
    assert patterncc("show", "demo", "--union", "-n", "200") != patterncc("show", "demo", "-n", "200")
    for suffix in ("svg", "png", "html"):
        for names in (["demo"], ["demo", "bigbird"], ["demo", "--overview"], ["demo", "bigbird", "--overview"]):
            file = tmp_path / f"d.{suffix}"
            assert patterncc("show", *names, "-o", file) == "" and file.stat().st_size > 500
            file.unlink()
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert patterncc("show", "demo", "-o", tmp_path / "d.png", code=2) == "" and "patterncc[png]" in patterncc.err
    assert "at 10,000,000 tokens" in patterncc("show", "s2_hybrid", "--overview", "-n", "10_000_000")


def test_where_nothing_fits_the_bound_that_was_given_is_named(patterncc: Shell) -> None:
    for given, other in (("--density", "--kv-budget"), ("--kv-budget", "--density")):
        bound = "0.001" if given == "--density" else "1KiB"
        patterncc(*SUGGEST[:2], "32k", *SUGGEST[3:], given, bound, code=1)
        assert f"ask for a larger {given}\n" in patterncc.err and other not in patterncc.err


def test_what_is_no_result_goes_to_stderr(patterncc: Shell) -> None:
    """Called without a command, which is a wrong usage."""
    for arguments in ([], ["cache"]):
        assert patterncc(*arguments, code=2) == "" and patterncc.err.startswith("Usage: patterncc")


def test_diff(patterncc: Shell, broken: Path) -> None:
    assert patterncc.json("diff", "demo", "demo")["equal"] is True
    assert "keep the same token pairs" in patterncc("diff", "demo", "demo")
    document = patterncc.json("diff", "phi3_small", broken, code=1)
    assert document["equal"] is False and document["only_in_a"] and document["only_in_b"] is None
    text = patterncc("diff", "phi3_small", broken, code=1)
    assert "only in b: nothing" in text and "coverage (layer): a holds, b fails" in text


def test_a_diff_tells_other_scores_of_the_same_pairs(patterncc: Shell, tmp_path: Path) -> None:
    head = "pattern: 1\nname: {}\nheads: 2\nblock: 64\n{}shards: [{{heads: all, local: {}}}]\n"
    for name, said, local in (("a", "scale: 0.125\n", 2), ("b", "softcap: 30.0\n", 2), ("c", "scale: 0.5\n", 3)):
        (tmp_path / f"{name}.yaml").write_text(head.format(name, said, local))
    files = [tmp_path / f"{name}.yaml" for name in "abc"]
    text = patterncc("diff", *files[:2])
    assert "softcap: a none, b 30.0" in text and "scale: a 0.125, b head_dim ** -0.5" in text
    scores = patterncc.json("diff", *files[:2])["scores"]
    assert scores == {"softcap": {"a": None, "b": 30.0}, "scale": {"a": 0.125, "b": None}}
    assert "scale: a 0.125, b 0.5" in patterncc("diff", files[0], files[2], code=1)
    assert "scale" not in patterncc("diff", files[0], files[0])


def test_list_and_schema(patterncc: Shell) -> None:
    assert [line.split()[0] for line in patterncc("list").splitlines()[1:]] == sorted(shipped())
    assert {"name", "about", "heads"} <= set(patterncc.json("list")[0])
    assert json.loads(patterncc("schema")) == language.schema()


def test_a_fault_is_called_one(patterncc: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patterncc.cli.list.shipped", lambda: 1 / 0)
    assert patterncc("list", code=70) == ""
    assert "this is a fault of patterncc, not of your pattern: ZeroDivisionError" in patterncc.err
    assert "Traceback" not in patterncc.err and "PATTERNCC_DEBUG=traceback" in patterncc.err
    monkeypatch.setenv("PATTERNCC_DEBUG", "traceback")
    patterncc("list", code=70)
    assert "Traceback" in patterncc.err


def test_a_torch_that_is_not_there_is_no_fault(patterncc: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other commands do without it; what is our own and missing is a fault."""

    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("patterncc.cli.list.shipped", lambda: missing("torch.library"))
    assert patterncc("list", code=2) == "" and "torch cannot be imported: No module named" in patterncc.err
    assert f"{sys.executable} -m pip install torch" in patterncc.err
    monkeypatch.setattr("patterncc.cli.list.shipped", lambda: missing("patterncc.lists"))
    assert patterncc("list", code=70) == "" and "fault of patterncc" in patterncc.err


def test_exit_codes_are_written_down_once() -> None:
    assert (codes.WRONG, codes.FAULT, codes.INTERRUPTED, codes.UNREAD) == (2, 70, 130, 141) and run.FAULT == 70


def test_a_path_that_the_system_refuses_is_no_fault(
    patterncc: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever command meets it, and wherever."""

    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "shut"))

    monkeypatch.setattr("patterncc.cli.list.shipped", refused)
    assert patterncc("list", code=2) == "" and f"cannot use {tmp_path / 'shut'}: permission denied" in patterncc.err
