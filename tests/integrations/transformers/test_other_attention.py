"""Models whose attention looks both ways, has images in it, or is no pattern at all: right or refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.integrations.transformers.conftest import FAMILIES, HEAD, LOCAL_AND_GLOBAL, SIZES, TEXT, TOLERANCE, witness

BIDIRECTIONAL = TEXT.replace("kv_heads: 2", "kv_heads: 4").replace("block: 16", "block: 16\ncausal: false")


def test_a_bidirectional_model(compiled: Any, tokens: torch.Tensor) -> None:
    import transformers

    from patterncc.integrations.transformers import register

    package, pattern = compiled(BIDIRECTIONAL)
    torch.manual_seed(1)
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 32}
    model = transformers.BertModel(transformers.BertConfig(vocab_size=97, **sizes)).eval()
    mask = torch.ones_like(tokens)
    mask[1, 70:] = 0
    model.set_attn_implementation(register(package))
    ours = model(tokens, attention_mask=mask).last_hidden_state
    alone = model(tokens[1:, :70]).last_hidden_state
    model.set_attn_implementation(witness(pattern))
    assert (ours[0] - model(tokens[:1]).last_hidden_state[0]).abs().max() < TOLERANCE
    assert (ours[1, :70] - alone[0]).abs().max() < TOLERANCE


def bart() -> Any:
    import transformers

    sizes = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in
             {"layers": 3, "attention_heads": 4, "ffn_dim": 32}.items()}  # fmt: skip
    return transformers.BartModel(transformers.BartConfig(vocab_size=97, d_model=64, **sizes))


def t5() -> Any:
    import transformers

    return transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=97, d_model=64, d_kv=16, num_layers=3, num_heads=4, d_ff=32)
    )


def mla() -> Any:
    import transformers

    sizes = {key: value for key, value in SIZES.items() if key != "head_dim"}
    sizes |= {"num_key_value_heads": 4, "first_k_dense_replace": 3, "n_group": 1, "topk_group": 1, "q_lora_rank": 16}
    sizes |= {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "kv_lora_rank": 16}
    sizes |= {"qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16}
    return transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(**sizes))


@pytest.mark.parametrize(
    ("make", "text", "said"),
    [
        (bart, BIDIRECTIONAL, "BartConfig has cross-attention"),
        (t5, BIDIRECTIONAL, "T5Attention gives position_bias|does not say its layer"),
        (
            mla,
            TEXT.replace("kv_heads: 2", "kv_heads: 4").replace("head_dim: 16", "head_dim: 32"),
            "16 numbers a value, the pattern tiny has 32",
        ),
    ],
)
def test_attention_that_is_no_pattern(compiled: Any, tokens: torch.Tensor, make: Any, text: str, said: str) -> None:
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import register

    torch.manual_seed(1)
    model = make().eval()
    try:
        model.set_attn_implementation(register(compiled(text)[0]))
    except ValueError:
        pytest.skip("this version of transformers has no attention functions for the model")
    if getattr(model.config, "_attn_implementation", "eager") == "eager":
        pytest.skip("this version of transformers has no attention functions for the model")
    with pytest.raises(UsageError, match=said):
        model(tokens)


def test_causal_and_not(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import register

    model = build("Llama", num_key_value_heads=4)
    model.set_attn_implementation(register(compiled(BIDIRECTIONAL)[0]))
    with pytest.raises(
        UsageError, match=r"LlamaAttention is causal, the pattern tiny is not \(line 8: causal: false\)"
    ):
        model(tokens)


def test_images_that_see_themselves_are_refused(compiled: Any, tokens: torch.Tensor) -> None:
    """Gemma 3 lets the tokens of an image see each other; its text alone is served, by the text's configuration."""
    import transformers

    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import register

    text = SIZES | FAMILIES["gemma3"][2] | {"vocab_size": 300}
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_id=262, image_token_index=262
    )
    torch.manual_seed(1)
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    package, pattern = compiled(HEAD + LOCAL_AND_GLOBAL)
    model.set_attn_implementation({"text_config": register(package)})
    ours = model(input_ids=tokens).logits
    model.set_attn_implementation({"text_config": witness(pattern)})
    assert (ours - model(input_ids=tokens).logits).abs().max() < TOLERANCE
    tokens[:, 10:14] = 262
    inputs = {"input_ids": tokens, "token_type_ids": (tokens == 262).long(), "pixel_values": torch.randn(2, 3, 28, 28)}
    model.set_attn_implementation({"text_config": register(package)})
    with pytest.raises(ValueError, match="the model changes its mask by or_masks"):
        model(**inputs)
    model.set_attn_implementation(register(package))
    with pytest.raises(UsageError, match="give the pattern to the text alone"):
        model(**inputs)
