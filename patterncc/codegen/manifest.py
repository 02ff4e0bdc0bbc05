"""manifest.json of a package: where it comes from, and the hash of every file. Versions stand here and nowhere else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patterncc.version import __version__

FILE = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What identifies a package: equal manifests, equal bytes."""

    name: str
    source: str  # the YAML text
    options: Mapping[str, Any]  # what was asked for besides the pattern
    files: Mapping[str, str]  # sha256 of every file but this one

    @property
    def digest(self) -> str:
        """sha256 over all of it, so over the plan and the templates too: they are in the files' bytes."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()

    def write(self) -> bytes:
        content = self._content() | {"digest": self.digest, "versions": {"patterncc": __version__, "language": 1}}
        return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")

    @staticmethod
    def read(data: bytes) -> Manifest:
        """Raises ValueError when `data` is no manifest or not the one that its own digest is of."""
        try:
            content = json.loads(data)
            manifest = Manifest(*(content[key] for key in ("name", "source", "options", "files")))
            if manifest.digest != content["digest"]:
                raise ValueError("the manifest was changed")
            if not isinstance(manifest.files, dict) or not isinstance(manifest.options, dict):
                raise ValueError("not a manifest")
        except (LookupError, TypeError, AttributeError, RecursionError, UnicodeError, json.JSONDecodeError) as error:
            raise ValueError("not a manifest") from error
        return manifest

    def _content(self) -> dict[str, Any]:
        return {"name": self.name, "options": self.options, "files": self.files, "source": self.source}


def folders(package: Path) -> list[Path]:
    """The folders of a package that have kernels: its own, or those of its shapes where layers differ in theirs."""
    parts = Manifest.read((package / FILE).read_bytes()).options.get("parts")
    return [package / part for part in parts] if parts else [package]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
