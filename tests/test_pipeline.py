"""From a file to an imported package: the cache on the way, broken promises, two processes at once.

Longer than other files: all of it begins with one small pattern file.
"""

from __future__ import annotations

import importlib
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import patterncc
from patterncc import language, pipeline, reference
from patterncc.analysis.geometry.budget import Budget
from patterncc.analysis.proofs.kv import kv
from patterncc.analysis.verdict import Verdict
from patterncc.errors import PatternError, UsageError
from patterncc.ir.classes import Classes
from patterncc.runtime import inputs
from patterncc.runtime.cache import Cache, CacheWarning
from patterncc.runtime.gallery import shipped

ROOT = Path(__file__).parent.parent
YAML = """\
pattern: 1
name: sample
heads: 4
kv_heads: 2
head_dim: 32
block: 16
shards:
  - heads: all
    local: 2
    stride: {stride}
    offset: h
promises: {promises}
"""


@pytest.fixture
def file(tmp_path: Path, fresh_cache: Path) -> Path:
    path = tmp_path / "sample.yaml"
    path.write_text(YAML.format(stride=4, promises="{coverage: layer}"))
    return path


def test_the_second_time_it_is_there(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = patterncc.compile(file)
    assert (first.name, first.plan, first.cached) == ("sample", "closed", False)
    assert first.path.name == "sample" and (first.path / "__init__.py").is_file()
    again = patterncc.compile(str(file))
    assert again.cached and (again.digest, again.path) == (first.digest, first.path)
    monkeypatch.setattr(pipeline, "generate", None)  # what was seen is not even parsed
    assert patterncc.compile(file).cached


def test_a_changed_comment_is_another_source_and_the_same_code(file: Path) -> None:
    first = patterncc.compile(file)
    file.write_text("# why\n" + file.read_text())
    second = patterncc.compile(file)
    assert first.digest != second.digest and not second.cached
    assert (first.path / "kernels/forward.py").read_bytes() == (second.path / "kernels/forward.py").read_bytes()
    assert Cache.of_user().latest("sample") == second.entry


def test_force_builds_it_again(file: Path) -> None:
    first = patterncc.compile(file)
    (first.path / "__pycache__").mkdir()
    again = patterncc.compile(file, force=True)
    assert not again.cached and again.digest == first.digest and not (again.path / "__pycache__").exists()


def test_a_damaged_entry_is_built_again(file: Path) -> None:
    first = patterncc.compile(file)
    (first.path / "pattern.py").write_text("HEADS = 5\n")
    with pytest.warns(CacheWarning, match=r"pattern\.py was changed"):
        again = patterncc.compile(file)
    assert not again.cached and again.digest == first.digest and again.entry.read()


def test_a_source_in_any_folder_is_of_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner" / "more").mkdir(parents=True)
    monkeypatch.setattr("patterncc.codegen.template.FOLDER", tmp_path)
    digests = [inputs.compiler.__wrapped__()]
    for name in ("a.py", "inner/a.py", "inner/more/a.h", "b.py"):
        (tmp_path / name).write_text("1\n")
        digests.append(inputs.compiler.__wrapped__())
    (tmp_path / "inner/a.py").rename(tmp_path / "inner/more/a.py")
    digests.append(inputs.compiler.__wrapped__())
    assert len(set(digests)) == len(digests)
    (tmp_path / "inner/a.pyc").write_text("1\n")  # bytecode is made from what is hashed
    assert inputs.compiler.__wrapped__() == digests[-1]


def test_another_compiler_compiles_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = inputs.input_key(file, None)
    assert key == inputs.input_key(file, None) != inputs.input_key(file, "table")
    monkeypatch.setattr(inputs, "compiler", lambda: b"another")
    assert inputs.input_key(file, None) != key


def test_a_file_that_names_another_file_is_always_read(file: Path) -> None:
    file.write_text(file.read_text().replace("local: 2", "local: 2 # no mask"))
    assert inputs.input_key(file, None) is None
    assert inputs.input_key(file.parent / "missing.yaml", None) is None


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no /dev/fd")
def test_a_pipe_is_read_once_and_what_never_ends_not_to_the_end(file: Path) -> None:
    """`patterncc compile <(sed ... mine.yaml)`"""
    reads, writes = os.pipe()
    os.write(writes, file.read_bytes())
    os.close(writes)
    assert patterncc.compile(f"/dev/fd/{reads}").digest == patterncc.compile(file).digest
    os.close(reads)
    with pytest.raises(PatternError, match="larger than 1048576 bytes"):
        patterncc.compile("/dev/zero")


def test_a_mask_that_is_spelled_with_an_escape_is_read_again(file: Path) -> None:
    escaped = file.read_text().replace("local: 2", '"m\\x61sk": "kept.npy"').replace("{coverage: layer}", "{}")
    assert "\\x61" in escaped
    file.write_text(escaped)
    for mask in (np.eye(3, dtype=bool), np.ones((3, 3), bool)):
        np.save(file.parent / "kept.npy", mask)
        expected = reference.dense_mask(language.load(file), 0, 48)
        assert patterncc.load(file).dense_mask(48)[0].numpy().tolist() == expected[0].tolist()


@pytest.mark.parametrize("promises", ["{rows: nonempty, kv: monotone}", "{kv: group}", "{}"])
def test_nothing_is_proved_twice(file: Path, promises: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdicts on what the file promises are handed on to who asks the same for caches."""
    proved: list[str] = []

    def counted(classes: Classes, scope: str, budget: Budget) -> tuple[Verdict, ...]:
        proved.append(scope)
        return kv(classes, scope, budget)

    monkeypatch.setattr("patterncc.analysis.proofs.kv.kv", counted)
    made = pipeline.generate(language.loads(YAML.format(stride=4, promises=promises)))
    assert proved == (["group", "head"] if "group" in promises else ["head"])
    assert "'kv': [None]" in made.sources["pattern.py"].decode().replace('"', "'")


def test_a_broken_promise_stops_the_compile(file: Path) -> None:
    file.write_text(YAML.format(stride=8, promises="{coverage: layer}"))
    with pytest.raises(pipeline.BrokenPromise) as raised:
        patterncc.compile(file)
    text = str(raised.value)
    assert f"{file}:12:1: coverage is promised and does not hold (layer, layer 0): row 6, column 4" in text
    assert "use stride 4" in text
    assert raised.value.verdicts[0].witness is not None
    assert Cache.of_user().entries() == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (YAML.replace("promises:", '"promises":'), "12:1"),
        (YAML.replace("promises:", "? promises\n:"), "12:3"),
        ('{{"pattern": 1, "name": "sample", "heads": 2, "block": 16,\n  "shards": [{{"heads": "all",\n'
         '"stride": {stride}}}],\n  "promises": {promises}}}\n', "4:3"),
        ("\ufeff" + YAML, "12:1"),
        (YAML.replace("\n", "\r\n"), "12:1"),
    ],
    ids=["quoted", "long key", "json", "byte order mark", "windows"],
)  # fmt: skip
def test_a_broken_promise_has_its_line(text: str, place: str, file: Path) -> None:
    file.write_bytes(text.format(stride=8, promises='{"coverage": "layer"}').encode())
    with pytest.raises(pipeline.BrokenPromise) as raised:
        patterncc.compile(file)
    assert str(raised.value).startswith(f"{file}:{place}: coverage is promised and does not hold")
    assert "    | " + " " * (int(place.split(":")[1]) - 1) + "^" in str(raised.value) or "json" in text


def test_no_promise_no_proof(file: Path) -> None:
    file.write_text(YAML.format(stride=8, promises="{}"))
    assert patterncc.compile(file).plan == "closed"


def test_what_kernels_cannot_take_is_said_in_the_file(file: Path) -> None:
    file.write_text(file.read_text().replace("head_dim: 32", "head_dim: 8"))
    with pytest.raises(patterncc.PatternError, match=r"sample.yaml:5:1: head_dim is 8; kernels take from 16 to 512"):
        patterncc.compile(file)
    file.write_text(file.read_text().replace("head_dim: 8", "head_dim: 32\nv_head_dim: 12"))
    with pytest.raises(patterncc.PatternError, match=r"sample.yaml:6:1: v_head_dim is 12; kernels take from 16"):
        patterncc.compile(file)


def test_an_unknown_name_gets_a_hint(fresh_cache: Path) -> None:
    with pytest.raises(patterncc.PatternError, match="did you mean phi3_small"):
        patterncc.compile("phi3_smal")
    with pytest.raises(patterncc.PatternError, match="neither a file nor"):
        patterncc.load("no_such_thing")


def test_load_gives_one_module_for_one_content(file: Path) -> None:
    first = patterncc.load(file)
    assert patterncc.load(file) is first is patterncc.load("sample")
    table = patterncc.load(file, plan="table")
    assert table is not first and table.PATTERN == first.PATTERN


def test_what_was_compiled_is_imported_by_name(file: Path) -> None:
    with pytest.raises(ImportError, match="no pattern 'sample' was compiled on this machine"):
        from patterncc.kernels import sample
    patterncc.compile(file)
    from patterncc.kernels import sample

    assert sample.PATTERN["heads"] == 4
    from patterncc import kernels

    assert {"sample", "demo"} <= set(dir(kernels)) and not hasattr(kernels, "other")


def test_a_name_that_begins_with_an_underscore_is_imported_too(file: Path) -> None:
    file.write_text(file.read_text().replace("name: sample", "name: _private"))
    patterncc.compile(file)
    from patterncc.kernels import _private

    assert _private.PATTERN["name"] == "_private"


def test_a_shipped_pattern_is_compiled_when_it_is_imported(fresh_cache: Path) -> None:
    from patterncc.kernels import demo

    assert demo.PATTERN["name"] == "demo" and [e.name for e in Cache.of_user().entries()] == ["demo"]


def test_an_import_that_cannot_be_says_what_can(fresh_cache: Path) -> None:
    with pytest.raises(ImportError, match=r"no module of its own: write `from patterncc\.kernels import demo`"):
        importlib.import_module("patterncc.kernels.demo")
    for name in ("nothing", "naïve"):
        with pytest.raises(ImportError, match=f"no pattern '{name}' was compiled on this machine, and none"):
            importlib.import_module(f"patterncc.kernels.{name}")
    with pytest.raises(UsageError, match="`naïve` is neither a file nor"):
        patterncc.load("naïve")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"plan": "x"}, "plan is 'x'; it takes closed, table"),
        ({"dtype": "int8"}, "dtype is 'int8'; it takes fp32, fp16, bf16"),
        ({"binaries": "sm_90"}, r"binaries is 'sm_90'; it takes architectures"),
        ({"binaries": ["sm_90", "sm90"]}, r"binaries names 'sm90'; it takes sm_80, .*\n  help: did you mean sm_90"),
        ({"binaries": [90]}, r"binaries names 90; it takes sm_80, "),
    ],
)
def test_options_that_there_are_not(file: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        patterncc.compile(file, **options)  # type: ignore[arg-type]


def test_functions_of_a_package_can_be_pickled_for_another_process(file: Path, tmp_path: Path) -> None:
    module = patterncc.load(file)
    (tmp_path / "f").write_bytes(pickle.dumps(module.dense_mask))
    script = f"import pickle; print(pickle.load(open({str(tmp_path / 'f')!r}, 'rb'))(3).sum().item())"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == str(4 * 6), done.stderr


def test_two_compiles_at_once(file: Path, fresh_cache: Path) -> None:
    command = [sys.executable, "-m", "patterncc", "compile", str(file)]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = {process.communicate()[0].splitlines()[-1] for process in processes}
    assert [process.returncode for process in processes] == [0, 0] and len(outputs) == 1
    (entry,) = Cache(fresh_cache).entries()
    assert entry.read()


ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("patterncc", "pydantic", "yaml", "typer", "rich"):
            raise ImportError(f"{name} is not to be had here")

sys.meta_path.insert(0, Refuse())
sys.path.insert(0, sys.argv[1])
import sample, torch
q, k, v = torch.randn(1, 4, 37, 32), torch.randn(1, 2, 37, 32), torch.randn(1, 2, 37, 32)
kept = sample.dense_mask(37)
wanted = torch.nn.functional.scaled_dot_product_attention(
    q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1), attn_mask=kept[None]
)
assert (sample.attention(q, k, v) - wanted).abs().max() < 1e-5
print(sample.__file__, kept.sum().item())
"""


def test_an_exported_package_stands_alone(file: Path, tmp_path: Path) -> None:
    done = patterncc.compile(file, output=tmp_path / "out")
    assert done.path == tmp_path / "out" / "sample"
    shutil.rmtree(Cache.of_user().root)
    run = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path / "out")], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    where, kept = run.stdout.split()
    pattern = language.load(file)
    assert Path(where) == done.path / "__init__.py" and int(kept) == int(reference.dense_mask(pattern, 0, 37).sum())


def test_compiling_needs_neither_torch_nor_triton(file: Path) -> None:
    script = f"import sys, patterncc; patterncc.compile({str(file)!r}); print({{'torch', 'triton'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_pattern_compiles(name: str, fresh_cache: Path) -> None:
    done = patterncc.compile(name)
    assert done.name == name and done.entry.read()
