"""What tests of packages on the CPU share."""

from __future__ import annotations

import shutil

import pytest

pytest.register_assert_rewrite("tests.package.kvcache.kvbatch")


@pytest.fixture(params=["compiled", "torch"])
def cpu_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of the CPU path: the kernels in C, where there is a compiler, and torch's operators."""
    if request.param == "compiled" and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler")
    monkeypatch.setenv("PATTERNCC_CPU", request.param)
    return request.param
