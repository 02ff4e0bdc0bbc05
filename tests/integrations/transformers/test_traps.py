"""What a model, a cache or a call asks of attention beside a pattern: right or refused, never wrong in silence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.integrations.transformers.conftest import HEAD, TEXT, TOLERANCE, witness

pytestmark = pytest.mark.peers


SHARDS = "shards: [{heads: all, local: 2, stride: 4, offset: h}]\n"


@pytest.fixture
def llama(build: Any, compiled: Any) -> Any:
    """A Llama whose attention is the pattern."""
    from patterncc.integrations.transformers import register

    model = build("Llama")
    model.set_attn_implementation(register(compiled()[0]))
    return model


@pytest.fixture
def shallow(build: Any, compiled: Any) -> Any:
    """A Llama of one layer, to be compiled in less time."""
    from patterncc.integrations.transformers import register

    torch._dynamo.reset()
    model = build("Llama", num_hidden_layers=1)
    model.set_attn_implementation(register(compiled(HEAD.replace("layers: 3", "layers: 1") + SHARDS)[0]))
    yield model
    torch._dynamo.reset()


def packed() -> torch.Tensor:
    return torch.cat([torch.arange(33), torch.arange(52)])[None]


def test_packed_sequences_in_a_whole_graph(shallow: Any, tokens: torch.Tensor) -> None:
    """By cu_seq_lens they are right; by position_ids alone, which a graph cannot look at, it stops."""
    starts = torch.tensor([0, 33, 85], dtype=torch.int32)
    lengths = {"cu_seq_lens_q": starts, "cu_seq_lens_k": starts, "max_length_q": 52, "max_length_k": 52}
    inputs = {"input_ids": tokens[:1], "position_ids": packed(), "use_cache": False}
    plain = shallow(**inputs).logits
    traced = torch.compile(shallow, fullgraph=True, backend="aot_eager")
    assert (traced(**inputs, **lengths).logits - plain).abs().max() < TOLERANCE
    with pytest.raises(RuntimeError, match="takes packed sequences by cu_seq_lens_q only"):
        traced(**inputs)


def test_padding_in_a_graph(shallow: Any, tokens: torch.Tensor) -> None:
    """The graph is broken where that is allowed, and the reason is given where it is not."""
    mask = torch.ones_like(tokens)
    mask[1, :9] = 0
    inputs = {"input_ids": tokens, "attention_mask": mask, "use_cache": False}
    plain = shallow(**inputs).logits
    traced = torch.compile(shallow, backend="aot_eager")(**inputs).logits
    assert (traced - plain)[mask.bool()].abs().max() < TOLERANCE
    torch._dynamo.reset()
    with pytest.raises(Exception, match="patterncc cannot trace padding masks and static caches"):
        torch.compile(shallow, backend="aot_eager", fullgraph=True)(**inputs)


def test_packed_sequences_with_padding_are_refused(llama: Any, tokens: torch.Tensor) -> None:
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import PatternCache

    mask = torch.ones_like(tokens)
    mask[:, 70:] = 0
    inputs = {"input_ids": tokens, "attention_mask": mask, "position_ids": packed().expand(2, -1)}
    for cache in ({"use_cache": False}, {"past_key_values": PatternCache(llama)}):
        with pytest.raises(UsageError, match="position_ids begin anew within a row that has a padding mask"):
            llama(**inputs, **cache)


@pytest.mark.parametrize("other", ["eager", "sdpa", "pattern"])
def test_a_cache_of_another_pattern_is_refused(llama: Any, compiled: Any, tokens: torch.Tensor, other: str) -> None:
    """sdpa attended to the newest token alone, in silence."""
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import PatternCache, register

    cache = PatternCache(llama)
    if other == "pattern":
        other = register(compiled(TEXT.replace("offset: h", "offset: 0"))[0])
    llama.set_attn_implementation(other)
    with pytest.raises(UsageError, match="serves only a model whose attention is the pattern"):
        llama(tokens, past_key_values=cache)


def test_keys_that_nobody_takes_are_missed(llama: Any) -> None:
    """Keys lose their mark where a model changes them behind its cache: the next ones are refused."""
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import PatternCache

    keys = torch.zeros(1, 2, 5, 16)
    cache = PatternCache(llama)
    layer = next(n for n, layer in enumerate(cache.layers) if hasattr(layer, "waiting"))
    cache.update(keys, keys, layer)
    with pytest.raises(UsageError, match="serves only a model"):
        cache.update(keys, keys, layer)
    cache.reset()
    cache.update(keys, keys, layer)


def test_a_cache_has_no_gradients_and_says_so(llama: Any, tokens: torch.Tensor) -> None:
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import PatternCache

    with pytest.raises(UsageError, match="PatternCache keeps no gradients"):
        llama(tokens, past_key_values=PatternCache(llama)).logits.sum().backward()


def test_a_second_turn_of_a_padded_talk(llama: Any, tokens: torch.Tensor) -> None:
    from patterncc.integrations.transformers import PatternCache

    mask = torch.ones_like(tokens)
    mask[1, :19] = 0
    cache = PatternCache(llama)
    options = {"max_new_tokens": 6, "do_sample": False}
    first = llama.generate(tokens, attention_mask=mask, past_key_values=cache, **options)
    again = torch.cat([first, tokens[:, :7]], 1)
    mask = torch.cat([mask, torch.ones(2, again.shape[1] - 85, dtype=torch.int64)], 1)
    held = llama.generate(again, attention_mask=mask, past_key_values=cache, **options)
    assert torch.equal(held, llama.generate(again, attention_mask=mask, use_cache=False, **options))


@pytest.mark.parametrize("far", ["strides: [{every: 5, anchor: query}]", "globals: {rows: [5]}"])
def test_later_rows_of_a_chunk_that_a_sliding_cache_cannot_serve(
    build: Any, compiled: Any, tokens: torch.Tensor, far: str
) -> None:
    """The first row of the chunk needs nothing that was dropped; later ones do."""
    from transformers import DynamicCache

    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import register

    package, _ = compiled(HEAD + f"shards: [{{heads: all, local: 20 tokens, {far}}}]\n")
    model = build("Mistral", sliding_window=40)
    model.set_attn_implementation(register(package))
    cache = DynamicCache(config=model.config)
    model(tokens[:, :64], past_key_values=cache)
    with pytest.raises(UsageError, match="sliding cache has dropped keys before token 25"):
        model(tokens[:, 64:], past_key_values=cache)


SHARED = """layouts:
  - layers: [0, 2]
    shards: [{heads: all, local: 20 tokens}]
  - layers: [1, 3]
    head_dim: 32
    shards: [{heads: all, local: 2, stride: 4, offset: h}]
"""


def test_layers_that_share_keys(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    """Gemma 4's last layers read the keys of others, and of a prompt they compute only queries whose logits count."""
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import PatternCache, register

    model = build(
        "Gemma4Text", num_hidden_layers=4, layer_types=["sliding_attention", "full_attention"] * 2, sliding_window=20,
        global_head_dim=32, num_kv_shared_layers=2, attention_k_eq_v=False, hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=97,
    )  # fmt: skip
    package, pattern = compiled(HEAD.replace("layers: 3", "layers: 4") + SHARED)
    mask = torch.ones_like(tokens)
    mask[1, :19] = 0
    options = {"max_new_tokens": 5, "do_sample": False}
    model.set_attn_implementation(witness(pattern))
    expected = model.generate(tokens, use_cache=False, **options)
    alone = model.generate(tokens[1:, 19:], use_cache=False, **options)
    model.set_attn_implementation(register(package))
    for cache in ({}, {"cache_implementation": "static", "disable_compile": True}):
        assert torch.equal(model.generate(tokens, **options, **cache), expected), cache
        padded = model.generate(tokens, attention_mask=mask, **options, **cache)
        assert torch.equal(padded[1, 85:], alone[0, 66:]), cache
    with pytest.raises(UsageError, match="layer 2 of the model reads the keys of layer 0"):
        model.generate(tokens, past_key_values=PatternCache(model), **options)
    positions = packed().expand(2, -1)
    with pytest.raises(UsageError, match="computes some of its queries only"):
        model(tokens, position_ids=positions, use_cache=False, logits_to_keep=1)


@pytest.mark.parametrize("asked", ["call", "generate"])
def test_weights_are_never_made(llama: Any, tokens: torch.Tensor, asked: str) -> None:
    """Refused, or given as none: some versions ask eager attention for them by themselves."""
    from patterncc.errors import UsageError

    with pytest.raises(UsageError, match="output_attentions asks for weights"):
        if asked == "call":
            llama(tokens, output_attentions=True)
        else:
            llama.generate(tokens, max_new_tokens=2, output_attentions=True, return_dict_in_generate=True)


@pytest.mark.parametrize("version", ["4.56.2", "6.0.0"])
def test_a_version_that_was_not_run_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    import importlib
    import sys

    import transformers

    from patterncc.errors import UsageError

    name = "patterncc.integrations.transformers"
    importlib.import_module(name)
    monkeypatch.setattr(transformers, "__version__", version)
    monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UsageError, match=rf"transformers {version} is installed; patterncc works with 4\.57 and newer"):
        importlib.import_module(name)
