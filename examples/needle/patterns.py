"""The four patterns that are compared, as YAML, and what each lets a head see."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from settings import Setting

ABOUT = {
    "dense": "every head sees everything",
    "covered": "a window, and far blocks shared out over the heads: together they see everything",
    "broken": "the same shards, but all heads hold the same far blocks",
    "local": "a window only",
}
_SHARD = {
    "dense": "dense: true",
    "covered": "local: {local}\n    stride: {heads}\n    offset: h",
    "broken": "local: {local}\n    stride: {heads}\n    offset: 0",
    "local": "local: {local}",
}
_FILE = """\
pattern: 1
name: needle_{name}
about: "{about}"
heads: {heads}
head_dim: {head_dim}
layers: {layers}
block: {block}
shards:
  - heads: all
    {shard}
promises: {{rows: nonempty, kv: monotone}}
"""


def write(setting: Setting, folder: Path) -> dict[str, Path]:
    """Write the four YAML files of a setting into `folder`; their paths by name."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {key: getattr(setting, key) for key in ("heads", "head_dim", "layers", "block", "local")}
    paths = {}
    for name, about in ABOUT.items():
        paths[name] = folder / f"needle_{name}.yaml"
        shard = _SHARD[name].format(**sizes)
        paths[name].write_text(_FILE.format(name=name, about=about, shard=shard, **sizes), encoding="utf-8")
    return paths


def packages(setting: Setting, folder: Path) -> dict[str, ModuleType]:
    """The four compiled packages by name: imported from `folder` if they lie there, else compiled into it.

    On a machine without patterncc, `folder` must have been filled elsewhere by `python examples/needle prepare`.
    """
    if not all((folder / f"needle_{name}" / "__init__.py").exists() for name in ABOUT):
        import patterncc

        for path in write(setting, folder).values():
            patterncc.compile(path, output=folder)
    sys.path.insert(0, str(folder))
    return {name: importlib.import_module(f"needle_{name}") for name in ABOUT}


def seen(package: ModuleType, length: int, depths: int) -> list[float]:
    """Share of positions that some head of layer 0 keeps for the last query, in `depths` equal parts of the context.

    This is known before any training: what no head keeps can only be recalled through other layers, if at all.
    """
    kept = package.dense_mask(1, length)[:, 0].any(0).float()
    return [part.mean().item() for part in kept.tensor_split(depths)]
