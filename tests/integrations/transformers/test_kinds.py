"""Models whose layers differ in kind: those without attention, and those whose keys are more than the tokens before."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.integrations.transformers.conftest import SIZES, TEXT, witness

pytestmark = pytest.mark.peers
TOLERANCE = 2e-5  # largest difference of logits near 1 in float32, through three layers
SHARDS = "shards: [{heads: all, local: 2, stride: 4, offset: h}]\n"
SPARSE = TEXT.split("shards:")[0] + SHARDS


def tiny(name: str, **changes: Any) -> Any:
    """A model of the library with random weights, large ones, so that tokens depend on what is attended."""
    import transformers

    if not hasattr(transformers, f"{name}Config"):
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    known = getattr(transformers, f"{name}Config")
    sizes = {key: value for key, value in SIZES.items() if hasattr(known(), key)}
    torch.manual_seed(1)
    model = getattr(transformers, f"{name}ForCausalLM")(known(**sizes | changes)).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.1)
    model.generation_config.eos_token_id = None
    return model


def hybrid() -> Any:
    """Two layers of linear attention before one of full attention."""
    sizes = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8}
    sizes |= {"linear_value_head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    kinds = ["linear_attention", "linear_attention", "full_attention"]
    return tiny("Qwen3Next", **sizes, shared_expert_intermediate_size=16, layer_types=kinds)


def test_layers_without_attention(compiled: Any, tokens: torch.Tensor) -> None:
    """Their state stays in the library's own layers of a cache; a PatternCache has both."""
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import PatternCache, register

    package, pattern = compiled(SPARSE)
    model = hybrid()
    model.set_attn_implementation(witness(pattern))
    wanted = model(tokens, use_cache=False).logits
    model.set_attn_implementation(register(package))
    assert (model(tokens, use_cache=False).logits - wanted).abs().max() < TOLERANCE * wanted.abs().max()
    mask = torch.ones_like(tokens)
    mask[1, :19] = 0
    options = {"max_new_tokens": 4, "do_sample": False}
    plain = model.generate(tokens, attention_mask=mask, **options)
    try:
        cache = PatternCache(model)
    except UsageError as error:  # transformers 4.57
        assert "layer 0 of the model is linear_attention, whose state this version" in str(error)
        return
    assert [type(layer).__name__ for layer in cache.layers] == ["LinearAttentionLayer"] * 2 + ["PatternLayer"]
    assert torch.equal(model.generate(tokens, attention_mask=mask, past_key_values=cache, **options), plain)
    assert 0 < cache.bytes <= cache.allocated_bytes
    beams = {"num_beams": 2, **options}
    held = model.generate(tokens, past_key_values=PatternCache(model), **beams)
    assert torch.equal(held, model.generate(tokens, **beams))


@pytest.mark.parametrize("name", ["DeepseekV4", "DeepseekV32"])
def test_keys_that_the_model_makes_or_chooses(compiled: Any, tokens: torch.Tensor, name: str) -> None:
    """Compressed keys stood among those of the tokens, in silence; an indexer asked for a mask that was none."""
    from patterncc.integrations.transformers import register

    changes: dict[str, Any] = {"kv_lora_rank": 16, "q_lora_rank": 16, "index_topk": 8, "index_head_dim": 16}
    changes |= {"index_n_heads": 2, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    changes |= {"n_group": 1, "topk_group": 1} if name == "DeepseekV32" else {}
    model = tiny(name, **changes)
    model.set_attn_implementation(register(compiled(SPARSE)[0]))
    for mask in (None, torch.ones_like(tokens)):
        with pytest.raises(ValueError, match=r"the model has layers of \w+_attention, which choose their keys"):
            model(tokens, attention_mask=mask, use_cache=False)


def test_a_kind_of_attention_that_nobody_knows(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import register

    model = build("Llama")
    model.set_attn_implementation(register(compiled()[0]))
    model.config.layer_types = ["full_attention", "sliding_attention", "other_attention"]
    with pytest.raises(UsageError, match="layer 2 of the model is other_attention: a pattern takes the place of full"):
        model(tokens, use_cache=False)


def test_more_keys_than_tokens(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    """As a model that joins keys of its own to those of a prompt would call: they are no tokens before the queries."""
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers.attention import attention
    from patterncc.integrations.transformers.bounds import bounds

    package, _ = compiled()
    layer = build("Llama").model.layers[0].self_attn
    q, k = torch.randn(2, 4, 85, 16), torch.randn(2, 2, 90, 16)
    positions = torch.arange(85).expand(2, -1)
    with pytest.raises(UsageError, match="begin at position 0, and there are 90 keys for 85 queries"):
        attention(package, layer, q, k, k, None, position_ids=positions)
    attention(package, layer, q, k, k, None, position_ids=positions + 5)  # five keys were cached before
    mask = torch.ones_like(tokens)
    mask[1, :7] = 0
    padded = bounds(2, 85, 85, attention_mask=mask)
    with pytest.raises(UsageError, match="layer 0 has 90 keys where the model's mask is for 85"):
        attention(package, layer, q, k, k, padded)


@pytest.mark.parametrize("given", ["read_index", "block_table"])
def test_pages_of_continuous_batching(build: Any, compiled: Any, given: str) -> None:
    """What generate_batch of older versions hands to any attention function: the keys lie in its pages."""
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers.attention import attention

    layer = build("Llama").model.layers[0].self_attn
    q, k = torch.randn(1, 4, 85, 16), torch.randn(1, 2, 85, 16)
    starts = torch.tensor([0, 33, 85], dtype=torch.int32)
    with pytest.raises(UsageError, match=f"LlamaAttention gives {given}, pages of continuous batching"):
        attention(compiled()[0], layer, q, k, k, None, cu_seq_lens_q=starts, **{given: [starts]})


def test_a_cache_that_does_not_tell_its_length(compiled: Any, tokens: torch.Tensor) -> None:
    """MiniMax's says 0 where its first layer is linear: decoding saw one key where the batch was padded, in silence."""
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import register

    kinds = ["linear_attention", "full_attention", "full_attention"]
    model = tiny("MiniMax", layer_types=kinds, num_local_experts=4, block_size=32)
    model.set_attn_implementation(register(compiled(SPARSE)[0]))
    mask = torch.ones_like(tokens)
    mask[1, :19] = 0
    options = {"max_new_tokens": 3, "do_sample": False}
    batch = model.generate(tokens, attention_mask=mask, use_cache=False, **options)
    alone = model.generate(tokens[1:, 19:], **options)
    assert torch.equal(batch[1, 85:], alone[0, 66:])
    try:
        held = model.generate(tokens, attention_mask=mask, **options)
    except UsageError as error:
        assert "layer 1 has 86 keys where the model's mask is for 1" in str(error)
    else:  # transformers 4.57 gives the position beside it
        assert torch.equal(held[:, 85:], batch[:, 85:])


def test_a_layer_that_attends_twice(compiled: Any, tokens: torch.Tensor) -> None:
    """DiffLlama attends to each half of its values by the same keys, which a PatternCache took twice, in silence."""
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import PatternCache, register

    model = tiny("DiffLlama")
    package, pattern = compiled(SPARSE)
    model.set_attn_implementation(register(package))
    if not model.config._attn_implementation.startswith("patterncc"):
        pytest.skip("this version of transformers has no attention functions for the model")
    options = {"max_new_tokens": 6, "do_sample": False}
    plain = model.generate(tokens, **options)
    with pytest.raises(UsageError, match="layer 0 attends more than once to keys that it caches once"):
        model.generate(tokens, past_key_values=PatternCache(model), **options)
    model.set_attn_implementation(witness(pattern))
    assert torch.equal(plain, model.generate(tokens, use_cache=False, **options))
