"""Generation: every kind of cache gives the tokens that the dense mask gives, and PatternCache holds fewer keys."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from patterncc.cli.run import run
from tests.integrations.transformers.conftest import TEXT, witness

pytestmark = pytest.mark.peers
NEW = 24


def greedy(model: Any, pattern: Any, tokens: torch.Tensor, new: int = NEW) -> torch.Tensor:
    """Tokens by the witness, without any cache."""
    model.set_attn_implementation(witness(pattern))
    with torch.no_grad():
        for _ in range(new):
            tokens = torch.cat([tokens, model(tokens, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    return tokens


def generated(model: Any, package: Any, tokens: torch.Tensor, new: int = NEW, **options: Any) -> torch.Tensor:
    from patterncc.integrations.transformers import register

    model.set_attn_implementation(register(package))
    return model.generate(tokens, max_new_tokens=new, do_sample=False, **options)


@pytest.mark.parametrize(
    "cache", [{}, {"cache_implementation": "static", "disable_compile": True}, {"use_cache": False}]
)
def test_caches_of_the_library(build: Any, compiled: Any, tokens: torch.Tensor, cache: Any) -> None:
    package, pattern = compiled()
    model = build("Llama")
    assert torch.equal(generated(model, package, tokens, **cache), greedy(model, pattern, tokens))


def test_families(family: Any, tokens: torch.Tensor) -> None:
    """Local and global layers, soft-capping, sinks: the library's caches and PatternCache give the mask's tokens."""
    from patterncc.integrations.transformers import PatternCache, register

    model, package, pattern = family
    expected = greedy(model, pattern, tokens, new=12)
    model.set_attn_implementation(register(package))
    static = {"cache_implementation": "static", "disable_compile": True}
    for options in ({}, static, {"past_key_values": PatternCache(model)}):
        assert torch.equal(generated(model, package, tokens, new=12, **options), expected), options


def test_the_cache_that_holds_what_is_kept(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    from patterncc.integrations.transformers import PatternCache, register

    package, pattern = compiled(TEXT.replace("local: 2, stride: 4, offset: h", "local: 2, stride: 8, offset: g"))
    model = build("Llama")
    model.set_attn_implementation(register(package))
    held = PatternCache(model)
    ours = generated(model, package, tokens, past_key_values=held)
    assert torch.equal(ours, greedy(model, pattern, tokens))
    length = tokens.shape[1] + NEW - 1
    assert held.get_seq_length() == length
    dense = 2 * 2 * 16 * 4 * length * 2 * 3  # K and V, KV heads, head_dim, bytes, tokens, batch, layers
    kept = []
    for layer in range(3):
        cache = package.KVCache(2, layer=layer)
        token = torch.zeros(2, 4, 1, 16)
        for _ in range(length):
            cache.step(token, token[:, :2], token[:, :2])
        kept.append(cache.bytes)
    assert held.bytes == sum(kept) < held.allocated_bytes < dense


def test_bytes_are_those_of_the_forecast(build: Any, compiled: Any, tokens: torch.Tensor, tmp_path: Path) -> None:
    """Of a dense layer and two sparse ones: live bytes to the byte, allocated ones within what KVCache promises, and
    plain layers where the context is too short to spare anything."""
    from patterncc.integrations.transformers import PatternCache, register

    text = TEXT.replace("local: 2, stride: 4, offset: h", "local: 2, stride: 8, offset: g")
    package, _ = compiled(text)
    (tmp_path / "tiny.yaml").write_text(text)
    model = build("Llama")
    model.set_attn_implementation(register(package))
    for length, plain in ((512, [0]), (32, [0, 1, 2])):
        cache = PatternCache(model, length=length)
        assert [n for n, layer in enumerate(cache.layers) if type(layer).__name__ == "DynamicLayer"] == plain
        ids = tokens[:1].repeat(1, 7)[:, :length]
        for part in ids.split([length - 7, 1, 6], 1):
            model(part, past_key_values=cache)
        done = io.StringIO()
        with contextlib.redirect_stdout(done):
            assert run(["forecast", str(tmp_path / "tiny.yaml"), "-n", str(length), "--dtype", "fp32", "--json"]) == 0
        said = json.loads(done.getvalue())["model"]
        if plain == [0]:
            assert cache.bytes == said["kv_bytes_kept"] < 0.6 * said["kv_bytes_dense"]
            block = 16 * 2 * 16 * 4  # tokens, K and V, head_dim, bytes, for each of two KV heads in two layers
            assert said["kv_bytes_kept"] <= cache.allocated_bytes <= 1.25 * said["kv_bytes_peak"] + 4 * block
            assert cache.allocated_bytes < 0.7 * said["kv_bytes_dense"]
        else:
            assert cache.bytes == cache.allocated_bytes == said["kv_bytes_dense"]


def test_left_padded_batches(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    from patterncc.integrations.transformers import PatternCache, register

    package, _ = compiled()
    model = build("Llama")
    mask = torch.ones_like(tokens)
    mask[1, :19] = 0
    alone = [generated(model, package, tokens[:1]), generated(model, package, tokens[1:, 19:])]
    model.set_attn_implementation(register(package))
    for options in ({}, {"past_key_values": PatternCache(model)}):
        batch = generated(model, package, tokens, attention_mask=mask, **options)
        assert torch.equal(batch[0, 85:], alone[0][0, 85:])
        assert torch.equal(batch[1, 85:], alone[1][0, 66:])


def test_beams(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    from patterncc.integrations.transformers import PatternCache, register

    package, _ = compiled()
    model = build("Llama")
    model.set_attn_implementation(register(package))
    plain = generated(model, package, tokens, num_beams=3)
    held = generated(model, package, tokens, num_beams=3, past_key_values=PatternCache(model))
    assert torch.equal(plain, held)


def test_a_prefix_that_many_prompts_begin_with(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    """A cache is filled once and copied for each prompt; the copies and the cache do not touch each other."""
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import PatternCache, register

    package, _ = compiled()
    model = build("Llama")
    model.set_attn_implementation(register(package))
    cache = PatternCache(model)
    with torch.no_grad():
        model(tokens[:1, :50], past_key_values=cache)
    held = cache.bytes
    for end in (60, 85, 51):
        for own in (copy.deepcopy(cache), copy.deepcopy(copy.deepcopy(cache))):
            ours = generated(model, package, tokens[:1, :end], past_key_values=own)
            assert torch.equal(ours, generated(model, package, tokens[:1, :end], use_cache=False))
    assert (cache.get_seq_length(), cache.bytes) == (50, held)
    own = copy.deepcopy(cache)
    model.set_attn_implementation("sdpa")
    with pytest.raises(UsageError, match="serves only a model whose attention is the pattern"):
        model(tokens[:1, 50:], past_key_values=own)
    for save in (pickle.dumps, lambda x: torch.save(x, io.BytesIO())):
        with pytest.raises(UsageError, match="cannot be pickled"):
            save(cache)


def test_chunked_prefill(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    from transformers import DynamicCache

    from patterncc.integrations.transformers import PatternCache, register

    package, _ = compiled()
    model = build("Llama")
    model.set_attn_implementation(register(package))
    whole = model(tokens).logits
    for cache in (DynamicCache(), PatternCache(model)):
        parts = [model(part, past_key_values=cache).logits for part in tokens.split([30, 1, 54], 1)]
        assert (torch.cat(parts, 1) - whole).abs().max() < 2e-5


def test_assisted_decoding_is_right_or_refused(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import PatternCache, register

    package, _ = compiled()
    model, helper = build("Llama"), build("Llama")
    model.set_attn_implementation(register(package))
    helper.set_attn_implementation("eager")
    plain = generated(model, package, tokens[:1])
    assert torch.equal(generated(model, package, tokens[:1], assistant_model=helper), plain)
    with pytest.raises((UsageError, ValueError), match=r"PatternCache cannot go back|crop"):
        generated(model, package, tokens[:1], assistant_model=helper, past_key_values=PatternCache(model))


WINDOW = "shards: [{heads: all, local: 20 tokens}]"


def test_sliding_caches(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    """A cache that keeps a window serves a pattern within it, and is refused for one that reaches further."""
    from patterncc.errors import UsageError

    head = TEXT.split("shards:")[0]
    package, pattern = compiled(head + WINDOW + "\n")
    model = build("Mistral", sliding_window=20)
    assert torch.equal(generated(model, package, tokens), greedy(model, pattern, tokens))
    far, _ = compiled()
    with pytest.raises(UsageError, match="sliding cache has dropped keys"):
        generated(model, far, tokens)


def test_a_cache_without_a_pattern_is_refused(build: Any) -> None:
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import PatternCache

    with pytest.raises(UsageError, match="no registered pattern"):
        PatternCache(build("Llama"))
