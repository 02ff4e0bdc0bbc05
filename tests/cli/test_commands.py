"""Every command: what it prints, where, and with which exit code."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patterncc import cli, language, reference
from patterncc.cli import output, run
from patterncc.runtime.cache import Cache
from patterncc.runtime.gallery import shipped

ROOT = Path(__file__).parents[2]


class Shell:
    """`patterncc` in this process, in an own cache."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object, code: int = 0) -> str:
        """stdout; stderr is in `self.err`."""
        self.capsys.readouterr()
        got = cli.main([str(a) for a in arguments])
        out, self.err = self.capsys.readouterr()
        assert got == code, out + self.err
        return out

    def json(self, *arguments: object, code: int = 0) -> Any:
        text = self(*arguments, "--json", code=code)
        assert text.count("\n") == 1  # one document and nothing else
        return json.loads(text)


@pytest.fixture
def patterncc(capsys: pytest.CaptureFixture[str], fresh_cache: Path) -> Shell:
    return Shell(capsys)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.yaml"
    path.write_text(shipped()["phi3_small"].read_text().replace("stride: 8", "stride: 16"))
    return path


@pytest.fixture
def mistaken(tmp_path: Path) -> Path:
    path = tmp_path / "mistaken.yaml"
    path.write_text("pattern: 1\nname: mistaken\nhead: 4\nblock: 60\n")
    return path


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


def test_a_broken_promise(patterncc: Shell, broken: Path) -> None:
    assert patterncc("compile", broken, code=1) == ""
    assert "coverage is promised and does not hold" in patterncc.err and "row 16, column 0" in patterncc.err
    assert patterncc("compile", broken, "--json", code=1) == ""


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
        (["compile"], "missing argument 'PATTERN...'"),
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
        (["show", "s2_strided", "demo", "--layer", "1"], "--layer is 1; s2_strided has layers 0 to 0"),
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
        (["cache", "lst"], "did you mean ls?"),
    ],
)
def test_a_wrong_usage_is_named_and_gets_a_hint(patterncc: Shell, arguments: list[str], words: str) -> None:
    patterncc(*arguments, code=2)
    assert words.lower() in patterncc.err.lower() and "fault of patterncc" not in patterncc.err


def test_verify(patterncc: Shell, broken: Path, tmp_path: Path) -> None:
    document = patterncc.json("verify", "coverage", "phi3_small")
    assert document["name"] == "phi3_small"
    required = {"property", "scope", "layer", "holds", "proof", "witness", "note"}
    assert all(required <= set(result) for result in document["results"])
    assert next(r for r in document["results"] if r["scope"] == "layer")["holds"] is True
    failing = patterncc.json("verify", "coverage", broken, code=1)["results"][0]
    assert failing["holds"] is False
    assert failing["witness"] == {"row": 16, "column": 0, "query_token": 1024, "key_token": 0}
    text = patterncc("verify", "coverage", broken, code=1)
    assert "residues 0-7 of 16 are kept by no head" in text and "use stride 8" in text
    assert patterncc.json("verify", "reach", "demo")["results"][0]["value"] == 1


def test_verify_without_patterns_takes_every_shipped_one(patterncc: Shell) -> None:
    documents = patterncc.json("verify", "promises")
    assert [document["name"] for document in documents] == sorted(shipped())
    assert all(result["holds"] for document in documents for result in document["results"])


def test_verify_all_writes_reports(patterncc: Shell, broken: Path, tmp_path: Path) -> None:
    xml, summary = tmp_path / "r.xml", tmp_path / "r.md"
    patterncc("verify", "all", "demo", broken, "--junit", xml, "--markdown", summary, code=1)
    tree = ElementTree.parse(xml).getroot()
    assert int(tree.attrib["failures"]) == 1 and len(tree.findall("testsuite")) == 2
    assert summary.read_text().startswith("## patterncc verify\n")


def test_a_mistake_in_one_of_several(patterncc: Shell, mistaken: Path) -> None:
    assert [d["name"] for d in patterncc.json("verify", "rows", "demo", mistaken, code=2)] == ["demo"]


@pytest.mark.parametrize(("name", "head"), [("s2_strided", 3), ("bert_local", 0), ("bigbird", 5)])
def test_table_is_the_rule(patterncc: Shell, name: str, head: int) -> None:
    document = patterncc.json("table", name, "--length", 650, "--head", head, "--layer", 0)
    pattern = language.load(shipped()[name])
    rows = -(-650 // pattern.block)
    assert {k: v for k, v in document.items() if k != "table"} == {
        "name": name, "block": pattern.block, "rows": rows, "columns": rows, "layer": 0, "head": head,
    }  # fmt: skip
    length = rows * pattern.block
    kept = reference.keeps(pattern, 0, head, np.arange(length), np.arange(length))
    blocks = kept.reshape(rows, pattern.block, rows, pattern.block).any((1, 3))
    assert document["table"] == [np.flatnonzero(row).tolist() for row in blocks]


def test_table_as_text_and_as_arrays(patterncc: Shell, tmp_path: Path) -> None:
    assert patterncc("table", "demo", "-n", "70", "--head", "1").splitlines() == [
        "0: 0",
        "1: 0 1",
        "2: 1 2",
        "3: 1-3",
        "4: 1 3 4",
    ]
    assert patterncc("table", "demo", "-n", "70", "-o", tmp_path / "t.npz") == ""
    with np.load(tmp_path / "t.npz") as arrays:
        assert arrays["pointers"].tolist()[:3] == [0, 1, 3] and arrays["block"] == 16 and str(arrays["name"]) == "demo"


def test_lengths_in_units(patterncc: Shell) -> None:
    assert patterncc("table", "demo", "-n", "1k") == patterncc("table", "demo", "-n", "1_024")


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


def test_forecast(patterncc: Shell) -> None:
    document = patterncc.json("forecast", "phi3_small", "--length", 131072)
    assert (document["name"], document["length"]) == ("phi3_small", 131072)
    assert {"layers", "density", "kv_bytes_dense", "kv_bytes_kept"} <= set(document["layers"][0]) & set(
        document["model"]
    )
    assert "kept token pairs" in patterncc("forecast", "phi3_small", "-n", "128k")
    lines = patterncc("forecast", "phi3_small", "-n", "128k", "--csv").splitlines()
    assert lines[0].startswith("layers,density,") and lines[-1].startswith("model,") and len(lines) == 4


@pytest.mark.parametrize("name", ["bigbird", "longformer", "bert_local"])
def test_a_forecast_that_would_take_all_memory_is_refused(patterncc: Shell, name: str) -> None:
    assert patterncc("forecast", name, "-n", 2**31 - 1, code=2) == ""
    assert "block rows would have to be counted one by one" in patterncc.err and "shorter length" in patterncc.err
    patterncc("forecast", "phi3_small", "-n", 2**31 - 1)


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


def test_the_cache(patterncc: Shell) -> None:
    assert patterncc("cache", "ls") == "" and "0 packages in" in patterncc.err
    path = Path(patterncc.json("compile", "demo")["path"])
    patterncc("compile", "ranges")
    assert [entry["name"] for entry in patterncc.json("cache", "ls")] == ["demo", "ranges"]
    assert "2 of 2 packages are whole" in patterncc("cache", "verify")
    (path / "api/ops.py").write_text("")
    assert "ops.py was changed" in patterncc("cache", "verify", code=1) and "damaged" in patterncc("cache", "ls")
    patterncc("compile", "demo")
    assert "warning: " in patterncc.err and "is built again" in patterncc.err
    assert patterncc("cache", "verify") == "2 of 2 packages are whole\n"
    assert patterncc("cache", "clear", "demo") == "removed 1 package\n"
    assert [entry["name"] for entry in patterncc.json("cache", "clear")] == ["ranges"]
    assert Cache.of_user().entries() == []


@pytest.mark.parametrize("name", ["", "-", "?", "../..", "class", "naïve", "☃", "nothere"])
def test_a_name_that_no_package_has_clears_none(patterncc: Shell, name: str) -> None:
    patterncc("compile", "demo")
    assert patterncc("cache", "clear", name) == "removed 0 packages\n"
    assert [entry.name for entry in Cache.of_user().entries()] == ["demo"]
    assert Cache.of_user().latest("demo") is not None


def test_a_cache_beside_a_folder_that_is_gone(
    patterncc: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    monkeypatch.setenv("PATTERNCC_CACHE_DIR", "cache")
    patterncc("compile", "demo", code=2)
    assert "PATTERNCC_CACHE_DIR is 'cache', and the working folder that it starts from is gone" in patterncc.err


def test_a_cache_that_cannot_be_written(patterncc: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PATTERNCC_CACHE_DIR", str(tmp_path / "file"))
    patterncc("compile", "demo", code=2)
    assert "cannot write to the cache" in patterncc.err and "PATTERNCC_CACHE_DIR" in patterncc.err


def test_a_fault_is_called_one(patterncc: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patterncc.cli.list.shipped", lambda: 1 / 0)
    assert patterncc("list", code=70) == ""
    assert "this is a fault of patterncc, not of your pattern: ZeroDivisionError" in patterncc.err
    assert "Traceback" not in patterncc.err and "PATTERNCC_DEBUG=traceback" in patterncc.err
    monkeypatch.setenv("PATTERNCC_DEBUG", "traceback")
    patterncc("list", code=70)
    assert "Traceback" in patterncc.err


def test_an_interrupt_is_quiet(patterncc: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("patterncc.cli.list.shipped", interrupt)
    assert patterncc("list", code=130) == "" and patterncc.err == ""


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
        ("--help >/dev/full", 2, "cannot write the output: No space left on device"),
        ("list >/dev/full", 2, "cannot write the output: No space left on device"),
        ("table phi3_small -n 60000 --json >/dev/full", 2, "cannot write the output: No space left on device"),
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


def test_exit_codes_are_written_down_once() -> None:
    assert (cli.FAULT, cli.INTERRUPTED, cli.UNREAD) == (70, 130, 141) and run.FAULT == 70


@pytest.mark.parametrize("command", ["ls", "verify", "clear", "clear demo", "ls --json"])
def test_a_cache_that_the_system_refuses_is_no_fault(
    patterncc: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    monkeypatch.setenv("PATTERNCC_CACHE_DIR", str(tmp_path / ("x" * 300)))
    assert patterncc("cache", *command.split(), code=2) == ""
    assert "cannot read the cache" in patterncc.err and "PATTERNCC_CACHE_DIR" in patterncc.err


def test_a_path_that_the_system_refuses_is_no_fault(
    patterncc: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever command meets it, and wherever."""

    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "shut"))

    monkeypatch.setattr("patterncc.cli.list.shipped", refused)
    assert patterncc("list", code=2) == "" and f"cannot use {tmp_path / 'shut'}: permission denied" in patterncc.err


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


def test_a_length_of_spaces_takes_no_time(patterncc: Shell) -> None:
    patterncc("forecast", "demo", "-n", "1k")
    start = time.process_time()
    patterncc("forecast", "demo", "-n", "1" + " " * 100_000 + "x", code=2)
    assert time.process_time() - start < 2 and "--length is `1" in patterncc.err  # squares: half a minute


def test_a_proof_by_arithmetic_imports_what_it_uses() -> None:
    """numpy and an XML library, which brings half of the network's, take longer than the whole proof."""
    script = (
        "import sys; from patterncc.cli import main; main(['verify', 'coverage', 'phi3_small']); "
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"numpy", "xml.sax", "http.client", "torch", "rich", "patterncc.analysis.explain.mend"}
    assert not heavy & set(done.stderr.split()) and "coverage" in done.stdout


def test_a_forecast_of_a_model_compares_layer_by_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Laguna's configuration against its pattern, with one layer's heads changed, and for `suggest`."""
    config = {"model_type": "laguna", "num_hidden_layers": 40, "num_attention_heads": 48, "num_key_value_heads": 8}
    config |= {"head_dim": 128, "hidden_size": 2048, "sliding_window": 512}
    config["layer_types"] = ["sliding_attention" if n % 4 else "full_attention" for n in range(40)]
    config["num_attention_heads_per_layer"] = [64 if n % 4 else 48 for n in range(40)]
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    assert run.run(["forecast", "laguna_xs", "--length", "4k", "--model", str(file)]) == 0
    config["num_attention_heads_per_layer"][7] = 72
    file.write_text(json.dumps(config))
    capsys.readouterr()
    assert run.run(["forecast", "laguna_xs", "--length", "4k", "--model", str(file)]) == 2
    assert "the model has 72 heads, the pattern laguna_xs has 64 in layer 7" in capsys.readouterr().err
    assert run.run(["suggest", "--model", str(file), "--length", "4k"]) == 2
    assert "layers differ in heads or widths" in capsys.readouterr().err
