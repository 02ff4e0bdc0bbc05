"""Configurations measured on this GPU by `patterncc tune`: read from the user's cache, once in a process.

The facts that a configuration depends on are hashed to the name of its file:

    kernels     the text of the kernels and their index maps, head_dim in it, and which head is of which class
    triton      its version: the compiler decides what fits and what is spilled
    device      name, architecture and processors
    numbers     size and precision: fp16 and bf16 fill the same tiles and run at the same rate, tf32 and fp32 do not
    direction   forward, decode (few rows), dq or dkdv

Length, batch and layer are none of them: one result holds for all.
"""

from __future__ import annotations

import hashlib
import json
import os
import pkgutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..pattern import CLASS_OF, CLASSES, FORM, KV_HEADS, NAME
from .configs import FEW_ROWS, KERNEL_FILES, Config
from .folder import cache_folder, locked
from .requests import arch, precision, processors

DIRECTIONS = ("forward", "decode", "dq", "dkdv")
FORMAT = 1
MOST_BYTES = 1 << 16
INTERPRETER = "Triton's interpreter"

tried: dict[str, Config] = {}  # by direction, while tuning; for all threads, since torch differentiates in its own


class Read(dict[tuple[str, torch.device, int, str], Config | None]):
    """The results that were read, and how often they were discarded."""

    generation = 0

    def clear(self) -> None:
        super().clear()
        self.generation += 1


_read = Read()


class TunedWarning(UserWarning):
    """A measured configuration cannot be used; the package's own table answers."""


def forward(q: torch.Tensor, rows: int) -> Config | None:
    """The measured configuration for the forward kernel and `rows` rows of a tile; None when nothing was measured."""
    return _config("decode" if rows <= FEW_ROWS else "forward", q)


def dq(q: torch.Tensor) -> Config | None:
    """The measured configuration for dQ; None when nothing was measured."""
    return _config("dq", q)


def dkdv(q: torch.Tensor) -> Config | None:
    """The measured configuration for dK and dV; None when nothing was measured."""
    return _config("dkdv", q)


def generation() -> int:
    """A number that changes whenever the results that were read are discarded."""
    return _read.generation


@contextmanager
def trying(direction: str, config: Config) -> Iterator[None]:
    """Launches in this direction take `config`, in this whole process."""
    tried[direction] = config
    try:
        yield
    finally:
        del tried[direction]


def _config(direction: str, q: torch.Tensor) -> Config | None:
    if tried and direction in tried:
        return tried[direction]
    key = direction, q.device, q.element_size(), precision(q)
    try:
        return _read[key]
    except KeyError:
        _read[key] = _stored(direction, q)
        return _read[key]


def _stored(direction: str, q: torch.Tensor) -> Config | None:
    facts = _facts(direction, q)
    path = Path("tuned", _file(facts))
    try:
        path = cache_folder() / path
        with path.open("rb") as file:
            return read(file.read(MOST_BYTES), facts)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        message = f"{path} is not used: {error}; `patterncc tune` measures again, `patterncc cache clear` removes it"
        warnings.warn(message, TunedWarning, stacklevel=2)
        return None


def read(data: bytes, facts: dict[str, Any]) -> Config:
    """The configuration in a file about these facts; ValueError saying why it is none."""
    try:
        content = json.loads(data)
        if content["format"] != FORMAT:
            raise ValueError(f"it has format {content['format']!r}, this package reads {FORMAT}")
        if content.pop("sha256") != _digest(content):
            raise ValueError("it is damaged")
        if content["facts"] != facts:
            raise ValueError("it is about something else")
        config = Config(**content["config"])
    except (LookupError, TypeError, AttributeError, RecursionError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError("it is damaged") from error
    sizes = config.rows, config.keys, config.warps
    if any(type(n) is not int for n in (*sizes, config.stages)) or config.stages < 1:
        raise ValueError(f"no configuration: {config}")
    if any(n < 1 or n & (n - 1) for n in sizes) or min(config.rows, config.keys) < 16:
        raise ValueError(f"no configuration: {config}")
    return config


def store(direction: str, q: torch.Tensor, config: Config, measured: dict[str, Any]) -> Path:
    """Write what was measured for tensors like q: whole or not at all, in the place of an earlier result."""
    facts = _facts(direction, q)
    content = {"format": FORMAT, "name": NAME, "facts": facts, "config": asdict(config), "measured": measured}
    text = json.dumps(content | {"sha256": _digest(content)}, indent=2) + "\n"
    root = cache_folder()
    path = root / "tuned" / _file(facts)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(root / "lock"):  # who holds it may empty tmp
        for place in (root / "tmp", path.parent):
            place.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root / "tmp", prefix="patterncc-writing-") as folder:
            (Path(folder) / path.name).write_text(text, encoding="ascii")
            os.replace(Path(folder) / path.name, path)
    _read.clear()
    return path


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else INTERPRETER


def _facts(direction: str, q: torch.Tensor) -> dict[str, Any]:
    import triton

    return {
        "direction": direction,
        "device": device_name(q.device),
        "arch": arch(q.device),
        "processors": processors(q.device),
        "numbers": f"{8 * q.element_size()}-bit{' tf32' * (precision(q) == 'tf32')}",
        "kernels": _kernels(),
        "triton": triton.__version__,
    }


@cache
def _kernels() -> str:
    """The digest of the kernels' sources and of the facts that select them."""
    texts = [pkgutil.get_data(__package__.rpartition(".")[0], f"kernels/{name}.py") or b"" for name in KERNEL_FILES]
    texts.append(repr((FORM, CLASSES, CLASS_OF, KV_HEADS)).encode())
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def _file(facts: dict[str, Any]) -> str:
    return f"{_digest(facts)[:32]}.json"


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
