"""Two packages as they are generated: what a change of the compiler does to them is seen in review.

Kept are the lines in which files differ from their templates. `pytest tests/golden --update-golden` writes them anew,
but only after the package has passed the same checks as here: a broken compiler cannot bless itself.
"""

from __future__ import annotations

import difflib
import importlib.util
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
import torch

from patterncc import language, pipeline, reference
from patterncc.codegen.package import write_files
from patterncc.codegen.template import companions, templates
from patterncc.runtime.gallery import shipped

FOLDER = Path(__file__).parent
NAMES = ("bigbird", "demo")  # a table, not causal, random; arithmetic, causal, GQA
LENGTH = 261  # tokens: no multiple of a block
TOLERANCE = 2e-5  # fp32 sums against fp64


def generated(name: str) -> dict[str, bytes]:
    """The sources of the package, the manifest left out: it holds versions and the hashes of all files."""
    return dict(pipeline.generate(language.load(shipped()[name])).sources)


def differing(sources: Mapping[str, bytes]) -> dict[str, bytes]:
    """For each file that differs from its template, the lines that differ, as a diff without line numbers."""
    known = {file: template.text.encode() for file, template in templates().items()} | companions()
    known["__init__.py"] = known.pop("package.py")
    assert known.keys() == sources.keys()
    found = {}
    for file, text in sources.items():
        before, after = (x.decode().splitlines() for x in (known[file], text))
        lines = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
        if lines:
            found[f"{file}.diff"] = "".join("@@\n" if x.startswith("@@") else f"{x}\n" for x in lines).encode()
    return found


def golden(name: str) -> dict[str, bytes]:
    return {p.relative_to(FOLDER / name).as_posix(): p.read_bytes() for p in sorted((FOLDER / name).rglob("*.diff"))}


def imported(name: str, sources: Mapping[str, bytes], folder: Path) -> ModuleType:
    write_files(folder / name, sources)
    module_name = f"golden_{folder.name}_{name}"
    where = [str(folder / name)]
    found = importlib.util.spec_from_file_location(
        module_name, folder / name / "__init__.py", submodule_search_locations=where
    )
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    sys.modules[module_name] = module
    found.loader.exec_module(module)
    return module


def check(name: str, package: ModuleType, length: int = LENGTH, kv_heads: int | None = None) -> None:
    """The package does what the file says: its mask exactly, its attention up to rounding, forward and backward."""
    pattern = language.load(shipped()[name])
    assert (package.dense_mask(length) == reference.dense_mask(pattern, 0, length)).all()
    torch.manual_seed(0)
    shared = kv_heads or pattern.kv_heads
    heads = shared * pattern.heads // pattern.kv_heads
    inputs = [torch.randn(1, n, length, pattern.head_dim, requires_grad=True) for n in (heads, shared, shared)]
    doubles = [x.detach().double().requires_grad_() for x in inputs]
    got, (wanted, _) = package.attention(*inputs), reference.attention(pattern, *doubles)
    weight = torch.randn_like(got)
    (got * weight).sum().backward()
    (wanted * weight.double()).sum().backward()
    assert (got - wanted).abs().max() < TOLERANCE
    for x, y in zip(inputs, doubles, strict=True):
        assert x.grad is not None and y.grad is not None
        assert (x.grad - y.grad).abs().max() < 10 * TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_the_golden_package_is_right_and_is_what_is_generated(name: str, tmp_path: Path, update_golden: bool) -> None:
    sources = generated(name)
    check(name, imported(name, sources, tmp_path))
    kept = differing(sources)
    if update_golden:
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        write_files(FOLDER / name, kept)
    assert golden(name) == kept, "if this change is meant: pytest tests/golden --update-golden"


@pytest.mark.interpret
@pytest.mark.parametrize("name", NAMES)
def test_its_kernels_are_right(name: str, tmp_path: Path) -> None:
    check(name, imported(name, generated(name), tmp_path), length=133, kv_heads=1)


def test_the_check_would_see_a_wrong_offset(tmp_path: Path) -> None:
    """Negative control: one offset of one head."""
    sources = generated("demo")
    rules = sources["pattern.py"]
    assert b"1, 4, 3, 1" not in rules and rules.count(b"None, 4, 3, 1,") == 1
    sources["pattern.py"] = rules.replace(b"None, 4, 3, 1,", b"None, 4, 2, 1,")
    assert differing(sources) != golden("demo")
    with pytest.raises(AssertionError):
        check("demo", imported("demo", sources, tmp_path))


def test_a_golden_without_a_pattern_is_a_mistake() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(NAMES)
