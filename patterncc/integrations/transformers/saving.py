"""A model that says its pattern in config.json: what is saved can be loaded with it, and is not dense in silence."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

from torch import nn
from transformers import PretrainedConfig

from patterncc.errors import PatternError, UsageError
from patterncc.integrations.place import source
from patterncc.integrations.transformers.registering import register
from patterncc.pipeline import load

KEY = "patterncc"  # in config.json: the text of the pattern


def attach(model: nn.Module, pattern: str | os.PathLike[str] | ModuleType) -> nn.Module:
    """The model, with the pattern as its attention implementation and its text in the configuration that is saved.

    A saved configuration has the implementation's name too. transformers from 5 on takes it from there, and raises
    ValueError where nobody registered it; 4.57 ignores it. Raises UsageError for a pattern that reads other files, and
    for a model of more than text.
    """
    config: Any = model.config
    package = pattern if isinstance(pattern, ModuleType) else load(pattern)
    if getattr(config, "sub_configs", None) and config.get_text_config() is not config:
        raise UsageError(
            f"{type(config).__name__} has configurations of several models",
            "model.set_attn_implementation({'text_config': register(PATTERN)}), wherever it is loaded",
        )
    text = source(package)
    try:
        is_whole = load(text).PATTERN == package.PATTERN
    except PatternError:
        is_whole = False
    if not is_whole:
        raise UsageError(
            f"the text of the pattern {package.PATTERN['name']} alone is not the pattern: it reads another file",
            "model.set_attn_implementation(register(PATTERN)), wherever the model is loaded",
        )
    name = register(package, unique=True)
    model.set_attn_implementation(name)  # type: ignore[operator]
    config.patterncc, config.attn_implementation = text, name
    return model


def load_model(kind: Any, folder: str | os.PathLike[str], **options: Any) -> Any:
    """`kind.from_pretrained(folder, **options)`, with the pattern that its config.json says attached. Raises UsageError
    where it says none."""
    text = PretrainedConfig.get_config_dict(folder, **options)[0].get(KEY)
    if not isinstance(text, str):
        raise UsageError(
            f"the configuration of {os.fspath(folder)} says no pattern",
            f"attach(model, PATTERN) before it is saved, or attach({kind.__name__}.from_pretrained(...), PATTERN)",
        )
    package = load(text)
    model = kind.from_pretrained(folder, attn_implementation=register(package, unique=True), **options)
    return attach(model, package)
