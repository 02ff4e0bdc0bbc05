"""A package: its facts, its text, and that equal input gives equal bytes."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from patterncc import language, pipeline
from patterncc.codegen.docstring import docstring, drawings, set_docstring
from patterncc.codegen.module import specialise_package
from patterncc.codegen.package import GeneratedPackage, write_files
from patterncc.codegen.template import Template, TemplateError, templates
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout
from patterncc.passes import lower
from patterncc.passes.choose_plan import choose_plan
from patterncc.runtime.gallery import shipped

ROOT = Path(__file__).parents[2]
YAML = """\
pattern: 1
name: {name}
about: {about}
heads: 2
head_dim: 32
block: 16
shards:
  - heads: all
    local: 2
    stride: 4
    offset: h
"""


def package(name: str = "sample", about: str = "A sample.", plan: str | None = None) -> GeneratedPackage:
    return pipeline.generate(language.loads(YAML.format(name=name, about=json.dumps(about))), plan)


def test_no_version_date_or_path_outside_the_manifest() -> None:
    made = package()
    for name, data in made.sources.items():
        text = data.decode()
        assert "0.1.0" not in text and "/" + "work" not in text and str(ROOT) not in text, name
    manifest = json.loads(made.files["manifest.json"])
    assert manifest["source"] == YAML.format(name="sample", about='"A sample."') and manifest["digest"] == made.digest
    assert set(manifest["files"]) == set(made.sources) and manifest["versions"]["patterncc"]


def test_equal_input_equal_bytes_whatever_the_hash_seed_and_the_folder(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from patterncc import pipeline, language\nfrom patterncc.runtime.gallery import shipped\n"
        "print(pipeline.generate(language.load(shipped()['bigbird'])).digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=folder,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, folder in (("1", tmp_path), ("2", ROOT))
    }
    assert len(digests) == 1


def test_the_digest_covers_pattern_templates_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [package().digest, package("other").digest, package(about="Else.").digest, package(plan="table").digest]
    changed = templates()["rules/masks.py"]
    monkeypatch.setitem(templates(), "rules/masks.py", type(changed)(changed.text + "\n# more\n"))
    assert len({*digests, package().digest}) == 5


@pytest.mark.parametrize(
    "about",
    [
        'ends in a "quote"',
        '""" import os',
        "back\\slash \\N{BEL}",
        "ünïcode ∪ 漢",
        "x" * 300,
        "attn_fwd and attn_bwd_dq stay",
        "# --- end constants ---",
        "if CAUSAL: pass",
    ],
)
def test_whatever_a_pattern_says_of_itself_stays_text(about: str) -> None:
    made = package(about=about)
    tree = ast.parse(made.sources["__init__.py"])
    said = ast.get_docstring(tree)
    assert said is not None and said.replace("\n", " ").startswith(f"sample: {about}")
    facts = next(
        n for n in ast.parse(made.sources["pattern.py"]).body if isinstance(n, ast.Assign) and _name(n) == "FACTS"
    )
    assert ast.literal_eval(facts.value)["about"] == about


def _name(node: ast.Assign) -> str:
    return node.targets[0].id if isinstance(node.targets[0], ast.Name) else ""


def test_a_module_without_a_docstring_is_refused() -> None:
    with pytest.raises(TemplateError):
        set_docstring("import os\n", "words")


def test_kernels_are_named_for_the_pattern() -> None:
    made = package("sample")
    for file, template in templates().items():
        for kernel in template.kernels:
            text = made.sources[file].decode()
            assert f"def {kernel}_sample(" in text and f"def {kernel}(" not in text


def test_a_long_docstring_is_cut_and_lines_stay_short() -> None:
    for name in ("phi3_small", "longnet", "bigbird"):
        pattern = language.load(shipped()[name])
        words = docstring(choose_plan(lower(pattern)), pattern.about)
        assert all(len(line) <= 104 for line in words.splitlines()) and len(words.splitlines()) < 70
        assert "class 0" in words and "not kept" in words


@pytest.mark.parametrize("name", sorted(shipped()))
def test_the_drawing_shows_what_a_class_drops(name: str) -> None:
    """Not the solid triangle that the first rows of a wide window are, nor a dense layer's."""
    classes = lower(language.load(shipped()[name]))
    title, *lines = drawings(classes)
    drawn = [line for line in lines if not set(line) - set("# |o:=?%+.")]
    assert len(drawn) in (16, 24) and all(len(line) <= 96 for line in lines)
    if all(str(layout) == "all" for layout in classes.layouts):
        assert {*"".join(drawn)} == {"#", " "}  # the control: a pattern that is dense
    else:
        assert len({*"".join(drawn)} - {" "}) > 1 and str(classes.layouts[int(title.split()[1].strip(","))]) != "all"


def test_masks_travel_as_bits(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((2, 5, 7)) < 0.5
    np.save(tmp_path / "m.npy", mask)
    text = YAML.format(name="masked", about="a").replace(
        "    local: 2\n    stride: 4\n    offset: h\n", "    mask: m.npy\n"
    )
    made = pipeline.generate(language.loads(text + "promises: {}\n", folder=tmp_path))
    values = Template(made.sources["pattern.py"].decode()).values
    for head, (file, rows, columns) in enumerate(values["MASKS"]):
        bits = np.unpackbits(np.frombuffer(made.sources[file], np.uint8))[: rows * columns].reshape(rows, columns)
        kept = np.zeros_like(mask[head])
        kept[:rows, :columns] = bits
        assert (np.tril(kept) == np.tril(mask[head])).all()  # what a causal pattern never reads may be left out


@pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="ruff is a tool of contributors")
@pytest.mark.parametrize("name", ["demo", "phi3_small", "gemma3", "bigbird", "bert_local", "z" * 40])
def test_generated_text_is_clean(name: str, tmp_path: Path) -> None:
    known = shipped()
    if name in known:
        pattern = language.load(known[name])
        made = specialise_package(choose_plan(lower(pattern)), pattern.about, None, "", ())
    else:
        made = package(name)
    write_files(tmp_path / "package", made.files)
    # long strings; and a noqa in a template may be needed by the other form of the index map only
    for command in (["check", "--ignore", "E501,RUF100"], ["format", "--check", "--diff"]):
        options = ["--no-cache", "--config", str(ROOT / "pyproject.toml"), str(tmp_path / "package")]
        done = subprocess.run([sys.executable, "-m", "ruff", *command, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_many_heads_make_no_long_files() -> None:
    """Class numbers fill lines instead of standing one a line."""
    layouts = tuple(Layout.parse(f"d<2 | j%64=={n}") for n in range(64))
    classes = Classes(
        "many", 64, True, 128, 256, 64, layouts, tuple(tuple(h % 64 for h in range(256)) for _ in range(40))
    )
    text = specialise_package(choose_plan(classes), "", {}, "", ()).sources["pattern.py"].decode()
    lines = text[text.index("CLASS_OF") :].splitlines()
    assert len(lines) < 1000 and "# fmt: off" in text and max(map(len, lines)) <= 120
