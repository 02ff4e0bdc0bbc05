"""What every test stands on: an own cache, C compiled once, Triton interpreted, poisoned memory, goldens asked for.

Markers say which hardware a test needs: none; `interpret`, Triton's interpreter on the CPU; `gpu`, a GPU.

Triton decides once, while it is imported, whether its own functions are interpreted. So this file imports it in
interpreting mode, except in a run for the GPU (`-m gpu`). Afterwards TRITON_INTERPRET is not set, and generated
packages take their CPU path; within a test marked `interpret` it is set, and they take the kernels. Subprocesses see
no TRITON_INTERPRET either: that is where a test compiles for a real target.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from tests import interpreted, runs, tritons
from tests.room import take_room

# Tensors here are small, and test workers share the cores: a second thread would only wait for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadline: a busy machine must not look like a wrong result. In CI the same examples are drawn in each run, so that
# a commit and not a draw is what passes; elsewhere every run draws new ones.
settings.register_profile("patterncc", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("patterncc")

ROOM = "PATTERNCC_TESTS_ROOM"  # names the folder of all that this run makes to its workers
KEPT = "PATTERNCC_TESTS_CC"  # and that of its `cc`
WENT_WELL = pytest.StashKey[bool]()
HAS_TRITON = importlib.util.find_spec("triton") is not None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden from what is now made")


def pytest_configure(config: pytest.Config) -> None:
    if ROOM not in os.environ:  # this process has no workers, or is theirs
        end = take_room()
        os.environ[ROOM] = tempfile.gettempdir()
        config.add_cleanup(lambda: end(config.stash.get(WENT_WELL, False)))
    # One cache for each worker: nothing is read from, or left in, the user's.
    os.environ["PATTERNCC_CACHE_DIR"] = tempfile.mkdtemp(prefix="cache-", dir=os.environ[ROOM])
    if HAS_TRITON and not for_gpu(config):
        interpret_triton()
    if KEPT not in os.environ and os.name == "posix" and (compiler := shutil.which("cc")):
        keep_compiled(compiler)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    gc.unfreeze()  # else libraries say at the end that something of theirs was not freed
    session.config.stash[WENT_WELL] = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


def keep_compiled(compiler: str) -> None:
    """Put a `cc` before the others that keeps what it compiles, for all workers of this run."""
    folder = tempfile.mkdtemp(prefix="cc-", dir=os.environ[ROOM])
    command = shlex.join([sys.executable, str(Path(__file__).with_name("kept_cc.py")), compiler, folder])
    (Path(folder) / "cc").write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    (Path(folder) / "cc").chmod(0o700)
    os.environ[KEPT] = folder
    os.environ["PATH"] = os.pathsep.join([folder, os.environ["PATH"]])


def for_gpu(config: pytest.Config) -> bool:
    expression = config.getoption("markexpr") or ""
    return "gpu" in expression and "not gpu" not in expression


def interpret_triton() -> None:
    """Import triton so that every kernel decorated in this process is interpreted; leave the environment as it was."""
    os.environ["TRITON_INTERPRET"] = "1"
    import triton.language  # noqa: F401
    from triton import knobs

    knobs.runtime.interpret = True  # holds whatever the environment says later
    del os.environ["TRITON_INTERPRET"]
    interpreted.quicken()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    missing = {
        "gpu": "no GPU run: ask for it with -m gpu" if not for_gpu(config) else gpu_missing(),
        "interpret": "a GPU run interprets nothing" if for_gpu(config) else None if HAS_TRITON else "no triton here",
    }
    for item in items:
        for marker, reason in missing.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
    if config.getoption("markexpr") == "slow":
        items[:] = runs.most_telling_first(items)


def pytest_collection_finish() -> None:
    """What is there before the first test stays to the end: Python need not look through it for garbage, which takes a
    tenth of a second and more each time."""
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if os.environ.get("CI"):
        terminalreporter.section("seconds by file, of all workers")
        for line in runs.slowest_files(report for reports in terminalreporter.stats.values() for report in reports):
            terminalreporter.write_line(line)


def gpu_missing() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "torch sees no GPU"


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """`once(name, make)`: a folder of that name for all workers of this run, which `make` has filled, once: the first
    worker that asks makes it, others wait for it."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def folder(name: str, make: Callable[[Path], None]) -> Path:
        with FileLock(shared / f"{name}.lock"):
            if not (made := shared / name).exists():
                shutil.rmtree(part := shared / f"{name}.part", ignore_errors=True)  # of a worker that failed
                part.mkdir()
                make(part)
                part.rename(made)
        return made

    return folder


@pytest.fixture
def triton(
    request: pytest.FixtureRequest, once: Callable[[str, Callable[[Path], None]], Path], monkeypatch: pytest.MonkeyPatch
) -> str:
    """The folder of the Triton that compiles, in processes of their own; "": the one that is installed. The other one
    is fetched in CI; where it cannot be had, the test is skipped and says why."""
    if not request.param:
        return ""

    def look(folder: Path) -> None:
        try:
            (folder / "found").write_text(str(tritons.folder(fetches=bool(os.environ.get("CI")))))
        except tritons.NoTritonError as why:
            (folder / "missing").write_text(str(why))

    answer = once("other_triton", look)
    if (answer / "missing").exists():
        pytest.skip((answer / "missing").read_text())
    found = (answer / "found").read_text()
    monkeypatch.syspath_prepend(found)
    return found


@pytest.fixture(autouse=True)
def _kernels_on_request(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("interpret"):
        monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether the run was asked to rewrite the goldens: only after what is written has passed its other checks."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that torch hands out uninitialised holds NaN, or for integers the smallest one: reading it shows."""
    import torch

    def poison(make):  # type: ignore[no-untyped-def]
        def made(*args, **kwargs):  # type: ignore[no-untyped-def]
            tensor = make(*args, **kwargs)
            if tensor.is_floating_point() or tensor.is_complex():
                return tensor.fill_(float("nan"))
            return tensor if tensor.dtype is torch.bool else tensor.fill_(torch.iinfo(tensor.dtype).min)

        return made

    for place, name in (
        (torch, "empty"),
        (torch, "empty_like"),
        (torch, "empty_strided"),
        (torch.Tensor, "new_empty"),
        (torch.Tensor, "new_empty_strided"),
    ):
        monkeypatch.setattr(place, name, poison(getattr(place, name)))


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test alone."""
    monkeypatch.setenv("PATTERNCC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=["kernels", "compiled", "torch"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, poisoned: None) -> str:
    """Kernels in Triton's interpreter, or either way of the CPU."""
    if request.param == "kernels":
        pytest.importorskip("triton")
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    else:
        monkeypatch.setenv("PATTERNCC_CPU", {"compiled": ""}.get(request.param, request.param))
    return request.param
