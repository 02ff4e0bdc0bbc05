"""SOURCE → a checked pattern file: the reader is chosen by the source, and its result is read back by the language."""

from __future__ import annotations

import io
import keyword
import re
import tempfile
from pathlib import Path

import numpy as np

from patterncc.errors import UsageError, quote
from patterncc.files import replace
from patterncc.formats.imported import LARGEST_FILE, Imported, meant, read_json
from patterncc.formats.places import WrongValue, located
from patterncc.formats.read_config import read_config
from patterncc.formats.read_deepspeed import read_deepspeed
from patterncc.formats.read_heads import read_duo, read_minference
from patterncc.formats.read_mask import LEVELS, read_mask, read_mask_mod

KINDS = (
    "config.json of transformers, DeepSpeed's sparse_attention JSON, head files (.tsv, .json), "
    "a mask (.npy, .npz, .pt), or module:function"
)


def import_pattern(
    source: str,
    name: str | None = None,
    heads: int | None = None,
    length: int | None = None,
    level: str = "auto",
    block: int | None = None,
) -> Imported:
    """The pattern of `source`. Raises UsageError for a source that cannot be read, or that the language cannot express.

    `heads` and `length` are for sources that do not state them: a DeepSpeed section, a mask_mod, frozen random blocks.
    """
    if level not in LEVELS:
        raise UsageError(f"--level is {quote(level)}; one of {', '.join(LEVELS)}")
    path = Path(source)
    if not path.exists() and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", source):
        imported = read_mask_mod(source, named(name, source.rpartition(":")[2]), heads or 1, length)
        _check(imported)
        return imported
    return _of_file(path, name, heads, length, level, block)


def _of_file(
    path: Path, name: str | None, heads: int | None, length: int | None, level: str, block: int | None
) -> Imported:
    if not path.exists():
        raise UsageError(f"there is no file {quote(str(path), 200)}", f"SOURCE is {KINDS}")
    if path.is_dir():
        path /= "config.json"
        if not path.exists():
            raise UsageError(f"the folder {quote(str(path.parent), 200)} holds no config.json", f"SOURCE is {KINDS}")
    with located(path):
        imported = _read(path, name, heads, length, level, block)
        _check(imported)
        return imported


def _read(
    path: Path, name: str | None, heads: int | None, length: int | None, level: str, block: int | None
) -> Imported:
    """The pattern that a file means; what kind of file it is its suffix says, and of JSON the keys."""
    stem = path.parent.resolve().name if path.name == "config.json" else path.stem
    name = named(name, stem)
    if path.suffix in (".npy", ".npz", ".pt"):
        return read_mask(path, name, level, block)
    if path.suffix in (".tsv", ".txt"):
        if path.stat().st_size > LARGEST_FILE:
            raise UsageError("the file is too large for a table of gates", file=str(path))
        return read_duo(path.read_text(encoding="utf-8-sig", errors="replace"), name)
    if path.suffix in (".yaml", ".yml"):
        raise UsageError("YAML is not imported", f"a pattern is used as it is; SOURCE is {KINDS}", str(path))
    document = read_json(path)
    if isinstance(document, list):
        return read_minference(document, name)
    if not isinstance(document, dict):
        raise UsageError("the file holds no object", f"SOURCE is {KINDS}", str(path))
    if "sparse_attention" in document or ("mode" in document and "num_hidden_layers" not in document):
        section = document.get("sparse_attention", document)
        if not isinstance(section, dict):
            raise WrongValue("sparse_attention", "`sparse_attention` is no object", 'expected {"mode": "fixed", ...}')
        return read_deepspeed(document, name, heads, length)
    return read_config(document, name)


def named(wanted: str | None, stem: str) -> str:
    """The name asked for, or one made of a file's: an identifier, as the language wants it.

    >>> named(None, "Llama-3.1 8B"), named(None, "7b")
    ('llama_3_1_8b', 'pattern_7b')
    """
    if wanted is not None:
        if not wanted.isidentifier() or keyword.iskeyword(wanted):
            raise UsageError(f"--name is {quote(wanted, 60)}; it must be a Python identifier")
        return wanted
    name = re.sub(r"\W+", "_", stem.lower(), flags=re.ASCII).strip("_")[:60] or "pattern"
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"pattern_{name}"


def _check(imported: Imported) -> None:
    """Read the text back like a user's file. Raises UsageError where the source is inconsistent (17 heads on 4 KV
    heads)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{imported.name}.yaml"
        write(imported, path)
        meant(imported.yaml, path.name, folder).shard(0, 0)


def write(imported: Imported, path: Path) -> None:
    """Write the YAML file, and beside it its masks; a file that is there is replaced whole or not at all."""
    for file, mask in imported.masks.items():
        buffer = io.BytesIO()
        np.save(buffer, mask)
        replace(path.parent / file, buffer.getvalue())
    replace(path, imported.yaml.encode())
