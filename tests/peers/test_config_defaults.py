"""What is taken for keys that a config.json leaves out, against the library's own classes."""

from __future__ import annotations

from typing import Any

import pytest

from patterncc.formats.config_defaults import DEFAULTS

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.peers


def library(kind: str) -> dict[str, Any]:
    """What the class of that model type takes where nothing is given; skips where this version has none."""
    if kind not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {kind}")
    config = transformers.AutoConfig.for_model(kind)
    named = config.to_dict()
    return named | {key: getattr(config, key) for key in DEFAULTS[kind] if key not in named}


@pytest.mark.parametrize("kind", DEFAULTS)
def test_the_values_are_the_librarys(kind: str) -> None:
    found = library(kind)
    assert {key: found[key] for key in DEFAULTS[kind]} == DEFAULTS[kind]


@pytest.mark.parametrize("kind", DEFAULTS)
def test_no_other_width_has_a_value_of_its_own(kind: str) -> None:
    """KV heads and widths that are not in the table are those that follow from heads and hidden_size."""
    found = library(kind)
    heads = found["num_attention_heads"]
    if "num_key_value_heads" not in DEFAULTS[kind]:
        assert found.get("num_key_value_heads") in (None, heads)
    if "head_dim" not in DEFAULTS[kind] and kind != "deepseek_v3":  # whose widths have other names
        assert found.get("head_dim") in (None, found["hidden_size"] // heads)


def test_most_of_them_are_known_to_this_version() -> None:
    assert sum(kind in transformers.CONFIG_MAPPING for kind in DEFAULTS) >= 0.7 * len(DEFAULTS)
