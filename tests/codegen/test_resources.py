"""Kernels compiled for GPUs that are not here: what they use fits, and the default configurations do not spill."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import patterncc
from patterncc.codegen.resources import Report, report
from patterncc.codegen.targets import check_arch

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no triton here")


def package(name: str, folder: Path) -> Path:
    """A shipped pattern's package, head dimension 128, in a folder of its own."""
    return patterncc.compile(name, output=folder).path


def check(reports: list[Report], arch: str) -> None:
    assert {r.arch for r in reports} == {arch}
    for r in reports:
        assert 0 < r.registers <= 255, r
        assert r.shared_bytes <= r.shared_limit, r
        if r.kernel.startswith(("attn_fwd", "attn_bwd_dq", "attn_bwd_dkdv")):
            assert r.async_copies and r.matrix_ops, r


@needs_triton
@pytest.mark.parametrize("name", ["phi3_small", "s2_hybrid"])
@pytest.mark.parametrize(("arch", "unit"), [("sm_80", "mma"), ("sm_90", "wgmma")])
def test_the_forward_kernel_does_not_spill(name: str, arch: str, unit: str, tmp_path: Path) -> None:
    [forward] = reports = report(package(name, tmp_path), [arch], only=r"^attn_fwd\w*$")
    check(reports, arch)
    assert (forward.spills, forward.matrix_unit) == (0, unit)


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_every_kernel_compiles(arch: str, tmp_path: Path) -> None:
    reports = report(package("s2_hybrid", tmp_path), [arch])
    check(reports, arch)
    spilling = {r.kernel.split()[0].removesuffix("_s2_hybrid") for r in reports if r.spills}
    assert spilling <= {"attn_bwd_dkdv"}, "addresses around its loops, in the configuration that is fastest by count"
    assert all(r.spills <= 32 for r in reports)


@needs_triton
def test_a_spill_is_seen(tmp_path: Path) -> None:
    folder = package("phi3_small", tmp_path)
    configs = folder / "configs.py"
    text = configs.read_text()
    wide = text.replace("return Config(128, 64, 8, stages)", "return Config(128, 128, 4, stages)")
    assert wide != text
    configs.write_text(wide)
    [forward] = report(folder, ["sm_80"], only=r"^attn_fwd\w*$")
    assert forward.spills > 100


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(ValueError, match="did you mean sm_90"):
        check_arch("sm90")
