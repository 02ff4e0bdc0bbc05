"""Compilers that fail, give wrong numbers or are named wrongly, and the switch between the ways of the CPU."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.package.cpu.built import holds, kept
from tests.package.made import HEAD, compiled, tensors

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler")


def test_without_a_compiler_torch_does_the_work(
    fresh: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert fresh().library() is None
    holds()
    monkeypatch.setenv("PATTERNCC_CPU", "compiled")
    with pytest.raises(RuntimeError, match="there is no C compiler: install one, or the package ziglang"):
        fresh().library()
    assert kept(tmp_path) == []


def test_a_compiler_that_fails_is_passed_over(
    fresh: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no such machine >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", f"{broken} -O0")
    with pytest.warns(RuntimeWarning, match=r"CC=.*broken -O0 fails: no such machine; cc compiles the CPU's kernels"):
        assert fresh().library() is not None
    assert kept(tmp_path) == []
    monkeypatch.setenv("PATTERNCC_CPU", "compiled")
    with pytest.raises(RuntimeError, match=r"broken -O0 fails: no such machine"):
        importlib.import_module(f"{compiled('tokens')[1].__name__}.cpu.library").library()  # another had been taken
    with pytest.raises(RuntimeError, match=r"broken -O0 fails: no such machine"):
        fresh().library()
    monkeypatch.setenv("PATH", "/bin/none")
    with pytest.raises(RuntimeError, match=r"broken -O0 fails: no such machine"):
        fresh().library()


@pytest.mark.parametrize("compiler", ['"unbalanced', "/bin/true", "no-such-compiler"])
def test_a_compiler_of_no_use_is_passed_over(
    compiler: str, fresh: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", compiler)
    with pytest.warns(RuntimeWarning, match="CC"):
        assert fresh().library() is not None
    monkeypatch.setenv("PATTERNCC_CPU", "compiled")
    with pytest.raises(RuntimeError, match="CC"):
        fresh().library()


@pytest.mark.parametrize("command", ["{folder}/wrapper -O2", "./wrapper"], ids=["a path", "from here"])
def test_a_wrapper_script_is_the_compiler(
    command: str, fresh: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where another compiler's library is kept already, and where its path is one from this folder."""
    assert fresh().library() is not None
    (tmp_path / "wrapper").write_text(f'#!/bin/sh\necho called >> {tmp_path}/calls\nexec cc "$@"\n')
    (tmp_path / "wrapper").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CC", command.format(folder=tmp_path))
    monkeypatch.setenv("PATTERNCC_CPU", "compiled")
    assert fresh().library() is not None
    assert fresh().library() is not None
    assert (tmp_path / "calls").read_text() == "called\n" and len(kept(tmp_path)) == 2
    holds()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["tokens", "all_dense"])
def test_a_misspelt_switch_is_refused_by_every_call(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = HEAD + "shards: [{heads: all, dense: true}]" if name == "all_dense" else name
    pattern, package = compiled(text)
    monkeypatch.setenv("PATTERNCC_CPU", "foo")
    q, k, v = tensors(pattern, 20, dtype=dtype)
    packed, starts = [x[0].transpose(0, 1) for x in (q, k, v)], torch.tensor([0, 20], dtype=torch.int32)
    cache, table = k.new_zeros(2, 16, 2, 16), torch.tensor([[0, 1]], dtype=torch.int32)
    for call in (
        lambda: package.attention(q, k, v),
        lambda: package.attention_varlen(*packed, starts, starts, 20, 20),
        lambda: package.decode(packed[0][None], cache, cache, table, starts[1:]),
    ):
        with pytest.raises(ValueError, match="PATTERNCC_CPU is 'foo'; expected torch or compiled"):
            call()


def test_another_value_of_the_switch_is_refused(
    fresh: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATTERNCC_CPU", "numba")
    with pytest.raises(ValueError, match="PATTERNCC_CPU is 'numba'; expected torch or compiled"):
        fresh().library()


def test_a_compiler_of_wrong_numbers_is_passed_over(
    fresh: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """-ffast-math has no infinities, which the kernels need. What is made next is not what was loaded before."""
    monkeypatch.setenv("CC", "cc -ffast-math")
    with pytest.warns(RuntimeWarning, match="its numbers are wrong; cc compiles"):
        assert fresh().library() is not None
    holds()
    monkeypatch.setattr(fresh(), "_compilers", lambda: iter([["cc", "-ffast-math"]]))
    monkeypatch.setenv("PATTERNCC_CPU", "compiled")
    monkeypatch.setenv("PATTERNCC_CACHE_DIR", "/dev/null")
    with pytest.raises(RuntimeError, match="cc -ffast-math gives no library of use: its numbers are wrong"):
        fresh().library()
    assert float("5e-324") * 1.0 > 0  # and here nothing has changed: what it is linked with flushes subnormal numbers
