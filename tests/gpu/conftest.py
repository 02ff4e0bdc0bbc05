"""Devices and packages: those that were prepared and lie beside, else ones that are made now."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.gpu.events import EVENTS, told
from tests.gpu.telling import Events
from tests.gpu.together import SHARE, rank, share


@dataclass(frozen=True)
class Device:
    """Where a test runs, in what dtype, how large, and how far from fp64 (by norm, of rounded inputs) it may be."""

    name: str
    dtype: torch.dtype
    times: int  # lengths, against the interpreter's
    tolerance: float


DEVICES = [
    # some hundreds of fp32 sums; the GPU's exp2 and log2 are approximate; bf16 rounds the result and the weights
    pytest.param(Device("cpu", torch.float32, 1, 2e-6), id="interpret", marks=pytest.mark.interpret),
    pytest.param(Device("cuda", torch.float32, 9, 1e-5), id="fp32", marks=pytest.mark.gpu),
    pytest.param(Device("cuda", torch.bfloat16, 9, 1e-2), id="bf16", marks=pytest.mark.gpu),
]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Device:
    torch.manual_seed(0)
    return request.param


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the packages, from which they can be imported."""
    folder = Path(__file__).parents[2] / "packages"
    if not folder.is_dir():
        from tests.gpu.prepare import prepare

        folder = prepare(tmp_path_factory.mktemp("prepared"))
    sys.path.insert(0, str(folder))
    return folder


@pytest.fixture
def package(packages: Path) -> Callable[[str], ModuleType]:
    return importlib.import_module


def pytest_configure(config: pytest.Config) -> None:
    if EVENTS in os.environ:
        config.pluginmanager.register(Events(Path(os.environ[EVENTS])))


def pytest_itemcollected(item: pytest.Item) -> None:
    """A test in the interpreter is none of a GPU's, where nothing interprets."""
    if item.get_closest_marker("gpu") and item.get_closest_marker("interpret"):
        raise pytest.UsageError(f"{item.nodeid} is marked `gpu` and `interpret`: take the devices with `indirect`")


@pytest.hookimpl(trylast=True)  # of those that -m and -k have left
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In one of several processes its share of the tests, the most telling ones first, without those that a process
    before it has begun."""
    if SHARE in os.environ:
        number, processes = map(int, os.environ[SHARE].split(" of "))
        begun = {event.get("begun") for event in told(Path(os.environ[EVENTS]))} if EVENTS in os.environ else set()
        places = share([item.name for item in items], number, processes)
        chosen = [items[place] for place in places if items[place].nodeid not in begun]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = sorted(chosen, key=lambda item: rank(item.name))
