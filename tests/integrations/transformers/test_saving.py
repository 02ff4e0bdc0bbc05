"""A saved model says its pattern: loaded again it has it, or is refused, and is not dense in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integrations.transformers.conftest import HEAD, TEXT, TOLERANCE, witness

pytestmark = pytest.mark.peers


def test_there_and_back_twice(
    build: Any, compiled: Any, tokens: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers
    from transformers import AttentionInterface, AutoModelForCausalLM, LlamaForCausalLM

    from patterncc.integrations.transformers import attach, load_model
    from patterncc.integrations.transformers.registering import package_of

    package, pattern = compiled()
    model = build("Llama")
    model.set_attn_implementation(witness(pattern))
    expected = model(tokens).logits
    attach(model, package).save_pretrained(tmp_path / "1")
    name = model.config._attn_implementation
    assert (model(tokens).logits - expected).abs().max() < TOLERANCE
    for kind, number in ((LlamaForCausalLM, 1), (AutoModelForCausalLM, 2)):
        model = load_model(kind, tmp_path / str(number), dtype=torch.float32)
        assert (model(tokens).logits - expected).abs().max() < TOLERANCE
        assert package_of(model.config._attn_implementation).PATTERN == package.PATTERN
        model.save_pretrained(tmp_path / str(number + 1))
    said = json.loads((tmp_path / "3" / "config.json").read_text())
    assert (said["patterncc"], said["attn_implementation"]) == (TEXT, name)
    assert name.startswith("patterncc_tiny_")  # no name that another pattern has, of a later version, say
    if int(transformers.__version__.split(".")[0]) >= 5:  # in a process that has not registered it
        monkeypatch.delitem(AttentionInterface._global_mapping, name)
        with pytest.raises(ValueError, match=rf'attn_implementation="{name}"` is not supported'):
            LlamaForCausalLM.from_pretrained(tmp_path / "3")


def test_another_pattern_takes_its_place(build: Any, compiled: Any, tmp_path: Path) -> None:
    from patterncc.integrations.transformers import attach

    model = attach(attach(build("Llama"), compiled()[0]), compiled(TEXT.replace("stride: 4", "stride: 3"))[0])
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["patterncc"] == TEXT.replace("stride: 4", "stride: 3")


def test_what_cannot_be_said_is_refused(build: Any, compiled: Any, tmp_path: Path) -> None:
    import numpy as np
    from transformers import LlamaForCausalLM

    import patterncc
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import attach, load_model

    model = build("Llama")
    model.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"says no pattern\n.*attach\(model, PATTERN\) before it is saved"):
        load_model(LlamaForCausalLM, tmp_path)
    np.save(tmp_path / "mask.npy", np.eye(8, dtype=bool))
    (tmp_path / "masked.yaml").write_text(
        HEAD.replace("tiny", "masked") + "shards: [{heads: all, mask: mask.npy}]\npromises: {}\n"
    )
    with pytest.raises(UsageError, match="the text of the pattern masked alone is not the pattern"):
        attach(model, patterncc.load(tmp_path / "masked.yaml"))


def test_a_model_of_more_than_text_is_refused(compiled: Any) -> None:
    from transformers import Gemma3Config

    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import attach

    model = torch.nn.Module()
    model.config = Gemma3Config()
    with pytest.raises(UsageError, match="Gemma3Config has configurations of several models"):
        attach(model, compiled()[0])
