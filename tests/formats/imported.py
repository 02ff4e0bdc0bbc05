"""What tests of imports share: a document is written, imported and loaded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from patterncc.formats.importing import import_pattern, write
from patterncc.language import Pattern, load
from patterncc.reference import keeps


def mask_of(pattern: Pattern, length: int, layer: int = 0) -> np.ndarray:
    """[heads, length, length] by the definition, causality included."""
    t = np.arange(length)
    return np.stack([keeps(pattern, layer, head, t, t) for head in range(pattern.heads)])


def read(tmp_path: Path, document: object, **options: object) -> Pattern:
    source, target = tmp_path / "source.json", tmp_path / "target.yaml"
    source.write_text(json.dumps(document))
    write(import_pattern(str(source), **options), target)  # type: ignore[arg-type]
    return load(target)


CONFIG = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 256, "num_hidden_layers": 6}


NARROW = {"head_dim": 64}  # some classes have wider heads where the configuration says nothing
