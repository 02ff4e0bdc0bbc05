"""Launches that are watched, and results of tuning that are made up."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tests.package.made import compiled

MEASURED = {"seconds": 1.0, "table_seconds": 2.0, "length": 64, "batch": 1}


Q = torch.zeros(1, 4, 40, 16)


def part(module: str, text: str = "strided") -> ModuleType:
    """A module of the package of a pattern of `made`."""
    return import_module(f"{compiled(text)[1].__name__}.{module}")


def config(rows: int = 32, keys: int = 16, warps: int = 8, stages: int = 3) -> Any:
    return part("launch.configs").Config(rows, keys, warps, stages)


def store(tuned: ModuleType, direction: str = "forward", of: Any = None, q: torch.Tensor = Q) -> Path:
    return tuned.store(direction, q, of or config(), MEASURED)
