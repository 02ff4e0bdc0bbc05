"""What the README and the pages of docs/ show is what happens: each page's files are written, its commands run, its
Python executed, block after block in one folder, as a reader would. cli.md has a test of its own.

A `yaml` block that begins with a file's name as a comment is that file. What follows `$ COMMAND` in a `console` block
is what it prints; a `text` block after a `python` block is what that prints. `sh` blocks install, or need what tests do
not have: of them only the names are checked.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import patterncc
import run as tasks
from patterncc import cli
from patterncc.language import loads
from tests.console import BLOCK, ROOT, blocks, call, commands, fits

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "guides").glob("*.md"))]
EVERY = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "cli.md", *sorted((ROOT / "examples").rglob("*.md"))]
NEEDS = {"transformers": "transformers", "megatron": "megatron"}  # page -> module
INTEGRATIONS = [f"patterncc/integrations/{name}/__init__.py" for name in ("transformers", "vllm", "megatron")]
FRAGMENT = "pattern: 1\nname: fragment\nheads: 64\nkv_heads: 8\nlayers: 8\nblock: 64\n"  # before a part of a file
KINDS = {"yaml", "console", "python", "text", "sh"}


@pytest.mark.skipif(sys.platform == "win32", reason="the commands are for a Unix shell")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_a_page_is_true(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    needed = NEEDS.get(page.stem)
    if needed and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    printed = None
    for block in blocks(page):
        kind, text = block.language, block.text
        if block.file:
            Path(block.file).write_text(text, encoding="utf-8")
        elif kind == "yaml":
            loads(text if "pattern: 1" in text else FRAGMENT + text)
        elif kind == "console":
            for command, shown in commands(text):
                found, _ = call(command)
                assert fits(shown, found), f"$ {command}\n{found}"
        elif kind == "text" and printed is not None:
            assert fits(text, printed), printed
        if kind == "python":
            done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            printed = done.stdout
        else:
            printed = None


@pytest.mark.parametrize("page", EVERY, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_every_block_is_of_a_kind_that_is_checked(page: Path) -> None:
    """And what `sh` blocks and indented lines call is there: tasks of run.py, commands, and files."""
    text = page.read_text(encoding="utf-8")
    assert {block.language for block in blocks(page)} <= KINDS, "say what the block is"
    lines = [line for block in blocks(page) if block.language == "sh" for line in block.text.splitlines()]
    lines += re.findall(r"^ {4}(\S.*)$", BLOCK.sub("", text), re.M)
    known = re.findall(r"^  ([a-z]+)  ", Path(cli.HELP).read_text().split("Commands:")[1], flags=re.M)
    for line in lines:
        words = line.split("#")[0].split()
        for before, word in itertools.pairwise(words):
            if before == "run.py":
                assert word in tasks.TASKS, line
            elif before == "patterncc" and re.fullmatch("[a-z]+", word):
                assert word in known, line
            elif before == "python" and "/" in word:
                assert (ROOT / word).exists() or page.name == "CONTRIBUTING.md", line


def test_links_lead_somewhere() -> None:
    for page in EVERY:
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", BLOCK.sub("", page.read_text(encoding="utf-8"))):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_readme_has_the_whole_signature() -> None:
    of = inspect.signature(patterncc.load("demo").attention).parameters.values()
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in of]
    assert f"attention{inspect.Signature(plain)}\n" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_site_has_every_page_and_the_reference_every_name() -> None:
    """Beside what `python3 run.py docs` stops at: functions that no page explains."""
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in [*PAGES, *(ROOT / "docs" / "reference").glob("*.md")]:
        assert f": {page.relative_to(ROOT).as_posix().removeprefix('docs/')}\n" in menu, f"{page} is not in mkdocs.yml"
    reference = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    explained = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)$", reference, re.M)} | {
        "PATTERN",
        "__version__",
    }
    for module in ("patterncc/__init__.py", "codegen_templates/package.py", *INTEGRATIONS):
        tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
        lists = [
            node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ]
        assert len(lists) == 1, module
        assert set(ast.literal_eval(lists[0].value)) <= explained, module


@pytest.mark.slow
def test_the_site_builds_and_a_broken_link_stops_it(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    names = ("mkdocs.yml", "README.md", "cli.md", "CONTRIBUTING.md", "docs", "benchmarks", "examples", "patterns")
    for name in (*names, "patterncc", "codegen_templates"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    build = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "kv_start" in (tmp_path / "site" / "reference" / "package.html").read_text(encoding="utf-8")
    for wrong in ("[a](nowhere.md)", "[a](language.md#nothing)", "::: patterncc.pipeline.nothing"):
        page = tmp_path / "docs" / "glossary.md"
        text = page.read_text(encoding="utf-8")
        page.write_text(f"{text}\n{wrong}\n", encoding="utf-8")
        assert subprocess.run(build, cwd=tmp_path, capture_output=True).returncode != 0, wrong
        page.write_text(text, encoding="utf-8")
