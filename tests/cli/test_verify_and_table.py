"""`verify` and `table`: verdicts, reports and rows, with their exit codes."""

from __future__ import annotations

import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from patterncc import language, reference
from patterncc.runtime.gallery import shipped
from tests.cli.shell import ROOT, Shell


def test_a_broken_promise(patterncc: Shell, broken: Path) -> None:
    assert patterncc("compile", broken, code=1) == ""
    assert "coverage is promised and does not hold" in patterncc.err and "row 16, column 0" in patterncc.err
    assert patterncc("compile", broken, "--json", code=1) == ""


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
