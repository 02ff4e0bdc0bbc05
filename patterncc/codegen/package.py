"""A generated package, before it is written anywhere."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from patterncc.codegen.manifest import FILE, Manifest, sha256

PATH = re.compile(r"([a-z][a-z0-9_]*/)*[a-z_][a-z0-9_]*\.(py|c|h|bin|json|cubin|hsaco)")


@dataclass(frozen=True)
class GeneratedPackage:
    """The files of `<name>/` by path: sources, tables, masks and binaries. The manifest is made from them. `parts` are
    whole packages in folders of it, one for each shape, where layers differ in their shapes."""

    name: str
    source: str
    options: Mapping[str, object]
    own: Mapping[str, bytes]
    parts: Mapping[str, GeneratedPackage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Names end in paths and in sources: they are checked here too, whoever made them."""
        check_name(self.name)
        for name in self.sources:
            if name == FILE or not PATH.fullmatch(name):
                raise ValueError(f"not a file of a package: {name!r}")

    @cached_property
    def sources(self) -> Mapping[str, bytes]:
        """Every file but the manifest, those of the parts too."""
        of_parts = {f"{place}/{name}": data for place, part in self.parts.items() for name, data in part.files.items()}
        return {**self.own, **of_parts}

    @cached_property
    def manifest(self) -> Manifest:
        return Manifest(self.name, self.source, self.options, {n: sha256(d) for n, d in sorted(self.sources.items())})

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @cached_property
    def files(self) -> Mapping[str, bytes]:
        """Every file, manifest.json last."""
        return {**dict(sorted(self.sources.items())), FILE: self.manifest.write()}


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """A new folder with these files, by their paths in it."""
    folder.mkdir(mode=0o700)
    for name, data in files.items():
        file = folder / name
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_bytes(data)


def check_name(name: str) -> str:
    """The name, if it may stand for a module; else ValueError.

    >>> check_name("demo")
    'demo'
    >>> check_name("../demo")
    Traceback (most recent call last):
    ValueError: not a module's name: '../demo'
    """
    if not is_name(name):
        raise ValueError(f"not a module's name: {name!r}")
    return name


def is_of(package: str, name: str) -> bool:
    """Whether a package, or one of a single shape in it, is that of the pattern of this name.

    >>> is_of("demo", "demo"), is_of("demo_h8_kv2_d64_v32", "demo"), is_of("demo_hop", "demo")
    (True, True, False)
    """
    return re.fullmatch(re.escape(name) + r"(_h\d+_kv\d+_d\d+(_v\d+)?(_sinks)?)?", package) is not None


def is_name(name: str) -> bool:
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name)
