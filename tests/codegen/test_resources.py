"""Kernels compiled for GPUs that are not here: what they use fits, and the default configurations do not spill."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import patterncc
from patterncc.codegen.kernel_calls import MERGING, SHARING
from patterncc.codegen.resources import Report, quiet_environment, report
from patterncc.codegen.targets import check_arch
from tests import tritons
from tests.tritons import both_versions

PATTERNS = Path(__file__).resolve().parents[2] / "patterns"
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no triton here")


def package(name: str, folder: Path) -> Path:
    """A shipped pattern's package, head dimension 128, in a folder of its own."""
    return patterncc.compile(name, output=folder).path


def with_head_dim(name: str, head_dim: int, folder: Path, more: str = "") -> Path:
    """A shipped pattern with another head dimension, and `more` keys, as a file in `folder`."""
    text = (PATTERNS / f"{name}.yaml").read_text()
    other = re.sub(r"head_dim: \d+", f"head_dim: {head_dim}", text)
    assert f"head_dim: {head_dim}\n" in other
    path = folder / f"{name}.yaml"
    path.write_text(f"{other}{more}\n")
    return patterncc.compile(path, output=folder).path


def check(reports: list[Report], arch: str) -> None:
    assert {r.arch for r in reports} == {arch}
    is_amd = arch.startswith("gfx")
    for r in reports:
        assert 0 < r.registers <= (512 if is_amd else 255), r
        assert r.shared_bytes <= r.shared_limit, r
        if r.kernel.startswith(("attn_fwd", "attn_bwd_dq", "attn_bwd_dkdv", "attn_cache_read")):
            assert r.matrix_ops and (r.async_copies or is_amd), r


@needs_triton
@both_versions
@pytest.mark.parametrize("name", ["phi3_small", "s2_hybrid"])
@pytest.mark.parametrize(("arch", "unit"), [("sm_80", "mma"), ("sm_90", "wgmma")])
def test_the_forward_kernel_does_not_spill(name: str, arch: str, unit: str, triton: str, tmp_path: Path) -> None:
    [forward] = reports = report(package(name, tmp_path), [arch], only=r"^attn_fwd\w*$")
    check(reports, arch)
    assert (forward.spills, forward.matrix_unit) == (0, unit)


@needs_triton
@pytest.mark.parametrize("arch", ["sm_90", "gfx942"])
def test_dk_and_dv_do_not_spill(arch: str, tmp_path: Path) -> None:
    reports = report(package("s2_hybrid", tmp_path), [arch], only="dkdv")
    check(reports, arch)
    purposes = [r.kernel.removeprefix("attn_bwd_dkdv_s2_hybrid").strip() for r in reports]
    assert purposes == ["", "near varlen", "strides varlen"]
    assert not any(r.spills for r in reports), reports


@needs_triton
@both_versions
@pytest.mark.parametrize("head_dim", [64, 256])
def test_dk_and_dv_of_other_head_dims_do_not_spill(head_dim: int, triton: str, tmp_path: Path) -> None:
    """Of 128 neither, but under Triton 3.6, whose 26 registers cost less there than any other configuration."""
    reports = report(with_head_dim("s2_hybrid", head_dim, tmp_path), ["sm_90"], only="dkdv$")
    check(reports, "sm_90")
    assert [r.spills for r in reports] == [0]


@needs_triton
@pytest.mark.parametrize("triton", ["other"], indirect=True)
def test_the_other_triton_compiles(triton: str) -> None:
    """Where there is one, it is that one that the reports above are about."""
    environment = quiet_environment()
    command = [sys.executable, "-c", "import triton; print(triton.__version__, triton.__file__)"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    here = importlib.import_module("triton").__version__
    assert triton in done.stdout and not done.stdout.startswith(f"{here} ")


def test_without_a_network_there_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """That of a version which nobody gave, and that of pip; what was given is taken as it is."""
    monkeypatch.delenv(tritons.GIVEN, raising=False)
    monkeypatch.setattr(tritons, "BUILD", tmp_path)
    with pytest.raises(tritons.NoTritonError, match=r"is not here: `python3 run.py compiled` fetches it"):
        tritons.folder(fetches=False)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(tritons.NoTritonError, match=r"could not be fetched: .*No "):
        tritons.folder(fetches=True)
    monkeypatch.setenv(tritons.GIVEN, str(tmp_path))
    assert tritons.folder(fetches=False) == tmp_path


@needs_triton
def test_dq_of_large_heads_takes_warp_group_products(tmp_path: Path) -> None:
    folder = package("gemma3", tmp_path)  # head dimension 256
    reports = report(folder, ["sm_90"], only="bwd_dq")
    check(reports, "sm_90")
    assert [(r.matrix_unit, r.spills) for r in reports] == [("wgmma", 0)] * 2  # of one sequence and of packed ones
    configs = folder / "launch/configs.py"
    text = configs.read_text()
    small = text.replace('{"sm_90": 128, "sm_86": 32}', '{"sm_90": 32, "sm_86": 32}')
    assert small != text
    configs.write_text(small)
    assert {r.matrix_unit for r in report(folder, ["sm_90"], only="bwd_dq")} == {"mma"}


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("arch", ["sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "gfx90a", "gfx942", "gfx950"])
def test_every_kernel_fits_and_none_spills(arch: str, head_dim: int, tmp_path: Path) -> None:
    reports = report(with_head_dim("s2_hybrid", head_dim, tmp_path), [arch])
    check(reports, arch)
    assert len(reports) > 8
    assert not [r for r in reports if r.spills]


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_86", "sm_100", "gfx942"])
@pytest.mark.parametrize(("head_dim", "dtype"), [(256, "bf16"), (128, "fp32")])
def test_large_heads_and_wide_numbers_fit(arch: str, head_dim: int, dtype: str, tmp_path: Path) -> None:
    """Where they may spill: products of float32 are not left to matrix units."""
    for r in report(with_head_dim("s2_hybrid", head_dim, tmp_path), [arch], dtype):
        assert r.shared_bytes <= r.shared_limit, r


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_80", "sm_86", "sm_90", "sm_100", "gfx942"])
def test_values_narrower_than_keys_fit(arch: str, tmp_path: Path) -> None:
    """MiMo-V2's and DeepSeek's widths."""
    reports = report(with_head_dim("s2_hybrid", 192, tmp_path, "v_head_dim: 128"), [arch])
    check(reports, arch)
    assert not [r for r in reports if r.spills]


@needs_triton
def test_a_spill_is_seen(tmp_path: Path) -> None:
    folder = package("phi3_small", tmp_path)
    configs = folder / "launch/configs.py"
    text = configs.read_text()
    wide = text.replace("return Config(128, 64, 8, stages)", "return Config(128, 128, 4, stages)")
    assert wide != text
    configs.write_text(wide)
    [forward] = report(folder, ["sm_80"], only=r"^attn_fwd\w*$")
    assert forward.spills > 100


def are_merged_after_all_are_stored(ptx: str) -> bool:
    """Whether parts are stored, then all threads wait for each other, then one counts, which orders what was stored
    before what is loaded after, and then they are loaded past the L1 cache."""
    counting = [match.start() for match in re.finditer(r"atom\.global\.gpu\.acq_rel\.add", ptx)]
    past = [match.start() for match in re.finditer(r"ld\.global\.cg\.v4", ptx)]
    if len(counting) != 1 or not past or past[0] < counting[0]:
        return False
    stores, waits = ptx.rfind("st.global", 0, counting[0]), ptx.rfind("bar.sync", 0, counting[0])
    return 0 < stores < waits and not re.search(r"ld\.global\.v4", ptx[counting[0] :])


@needs_triton
@both_versions
@pytest.mark.parametrize("purpose", [MERGING, pytest.param(SHARING, marks=pytest.mark.slow)])
@pytest.mark.parametrize("arch", ["sm_90", *(pytest.param(x, marks=pytest.mark.slow) for x in ("sm_80", "sm_100"))])
def test_the_last_program_loads_what_all_have_stored(arch: str, purpose: str, triton: str, tmp_path: Path) -> None:
    folder = package("ranges", tmp_path)
    command = [sys.executable, "-m", "tests.codegen.merging", str(folder), arch, purpose]
    done = subprocess.run(command, env=quiet_environment(), capture_output=True, text=True, check=True)
    assert are_merged_after_all_are_stored(done.stdout)
    before, counted, after = re.split(r"(atom\.global\.gpu\.acq_rel\.add)", done.stdout)
    unordered = counted.replace("acq_rel", "relaxed")
    spoiled = before.replace("bar.sync", "nop"), before + unordered, before + counted + after.replace(".cg", "")
    assert not any(are_merged_after_all_are_stored(x) for x in (spoiled[0] + counted + after, *spoiled[1:]))


@needs_triton
@both_versions
@pytest.mark.parametrize("arch", ["sm_90", *(pytest.param(x, marks=pytest.mark.slow) for x in ("sm_80", "sm_100"))])
def test_decoding_does_not_spill(arch: str, triton: str, tmp_path: Path) -> None:
    """Query heads of a KV head that are alike, and those that share near keys."""
    reports = report(package("phi3_small", tmp_path), [arch], only="attn_fwd.* decode")
    check(reports, arch)
    assert [(r.kernel.partition(" ")[2], r.spills) for r in reports] == [("decode", 0), (MERGING, 0)]
    reports = report(package("ranges", tmp_path), [arch], only=f"attn_fwd.* {SHARING}")
    check(reports, arch)
    assert [(r.kernel.partition(" ")[2], r.spills) for r in reports] == [(SHARING, 0)]


def disagreeing(folder: Path) -> dict[str, list[str]]:
    """For each kernel and purpose of a report for sm_90 and fp16, the constants that no launcher passes so."""
    command = [sys.executable, str(Path(__file__).with_name("launched.py")), str(folder), "sm_90", "fp16"]
    environment = quiet_environment() | {"PATTERNCC_CACHE_DIR": str(folder / "nothing")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {f"{kernel} {purpose}".strip(): wrong for kernel, purpose, wrong in json.loads(done.stdout.splitlines()[-1])}


@needs_triton
def test_reports_are_about_what_launchers_launch(tmp_path: Path) -> None:
    """Head dim 128, which the Hopper kernels would take: binaries and reports are of the plain ones."""
    of_ranges = disagreeing(package("ranges", tmp_path))
    assert f"attn_fwd {SHARING}" in of_ranges and not any(of_ranges.values()), of_ranges
    folder = package("s2_hybrid", tmp_path)
    found = disagreeing(folder)
    assert len(found) > 10 and not any(found.values()), found
    launcher = folder / "launch/told.py"  # the control
    before, forward = launcher.read_text().split("def forward_launch")
    assert forward.count("ALIGN=align,") == 1
    launcher.write_text(f"{before}def forward_launch{forward.replace('ALIGN=align,', 'ALIGN=1,')}")
    assert {name for name, wrong in disagreeing(folder).items() if "ALIGN" in wrong} == {
        f"attn_fwd{purpose}" for purpose in ("", " varlen", " paged", " decode", " decode, several programs")
    }


@needs_triton
def test_what_stands_around_the_products_is_reported(tmp_path: Path) -> None:
    """Kernels of sinks, of sums and of caches: what they take beside tensors are numbers."""
    text = "pattern: 1\nname: sunk\nheads: 4\nkv_heads: 2\nhead_dim: 64\nblock: 16\nsinks: learned\n"
    patterncc.compile(text + "shards: [{heads: all, local: 2, stride: 4}]", output=tmp_path)
    found = report(tmp_path / "sunk", ["sm_90"], only="sinks|round|bwd_sum|prepare|cache")
    assert {r.kernel.replace("_sunk", "") for r in found} == {
        "attn_sinks", "attn_sinks varlen", "attn_bwd_sinks", "attn_bwd_prepare", "attn_bwd_sum", "attn_bwd_round",
        "attn_cache_put", "attn_cache_read", "attn_cache_read several programs",
    }  # fmt: skip
    assert not [r for r in found if r.spills]


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(ValueError, match="did you mean sm_90"):
        check_arch("sm90")
