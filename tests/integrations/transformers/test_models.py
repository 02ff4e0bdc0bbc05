"""Models of the library under a pattern, against their own eager attention with the dense mask of each head."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.integrations.transformers.conftest import FAMILIES, TEXT, witness

pytestmark = pytest.mark.peers
TOLERANCE = 2e-5  # largest difference of logits near 1 in float32, through three layers


def both(model: Any, package: Any, pattern: Any, **inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    from patterncc.integrations.transformers import register

    model.set_attn_implementation(register(package))
    ours = model(**inputs).logits
    model.set_attn_implementation(witness(pattern))
    return ours, model(**inputs).logits


def test_forward_and_gradients(family: Any, tokens: torch.Tensor) -> None:
    """Also where layers differ, scores are capped (Gemma 2) and sinks are learned (gpt-oss), whose gradient counts."""
    model, package, pattern = family
    gradients = []
    for logits in both(model, package, pattern, input_ids=tokens):
        model.zero_grad()
        logits.square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])  # experts may get none
        gradients.append(logits.detach())
    assert (gradients[1] - gradients[3]).abs().max() < TOLERANCE
    for ours, theirs in zip(gradients[0], gradients[2], strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm() + 1e-6  # float32, sums over 170 tokens


def test_the_witness_can_tell(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    """A control: another pattern's logits are further away than the tolerance, by far."""
    package, _ = compiled()
    _, other = compiled(TEXT.replace("offset: h", "offset: 0"))
    ours, theirs = both(build("Llama"), package, other, input_ids=tokens)
    assert (ours - theirs).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_padding(build: Any, compiled: Any, tokens: torch.Tensor, side: str) -> None:
    """The rows of a padded batch equal the same tokens alone."""
    from patterncc.integrations.transformers import register

    package, _ = compiled()
    model = build("Llama")
    model.set_attn_implementation(register(package))
    mask = torch.ones_like(tokens)
    if side in ("left", "both"):
        mask[1, :23] = 0
    if side in ("right", "both"):
        mask[1, 70:] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    padded = model(input_ids=tokens, attention_mask=mask, position_ids=positions).logits
    for row in range(2):
        kept = mask[row].bool()
        alone = model(input_ids=tokens[row : row + 1, kept]).logits
        assert (padded[row, kept] - alone[0]).abs().max() < TOLERANCE


def test_a_mask_with_holes_is_refused(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import register

    package, _ = compiled()
    model = build("Llama")
    model.set_attn_implementation(register(package))
    mask = torch.ones_like(tokens)
    mask[0, 40] = 0
    with pytest.raises(ValueError, match="has holes"):
        model(input_ids=tokens, attention_mask=mask)
    with pytest.raises(UsageError, match=r"mask of shape \[2, 1, 85, 85\]"):
        model(input_ids=tokens, attention_mask=torch.ones(2, 1, 85, 85, dtype=torch.bool))


@pytest.mark.parametrize("told", ["position_ids", "cu_seq_lens"])
def test_packed_sequences(build: Any, compiled: Any, tokens: torch.Tensor, told: str) -> None:
    from patterncc.integrations.transformers import register

    package, _ = compiled()
    model = build("Llama")
    model.set_attn_implementation(register(package))
    lengths = [33, 1, 51]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    options: dict[str, Any] = {"position_ids": positions, "use_cache": False}
    if told == "cu_seq_lens":
        starts = torch.tensor([0, 33, 34, 85], dtype=torch.int32)
        options |= {"cu_seq_lens_q": starts, "cu_seq_lens_k": starts, "max_length_q": 51, "max_length_k": 51}
    packed = model(input_ids=tokens[:1], **options).logits[0]
    parts = [model(input_ids=part[None]).logits[0] for part in tokens[0].split(lengths)]
    assert (packed - torch.cat(parts)).abs().max() < TOLERANCE
    if told == "position_ids":
        rows = model(input_ids=tokens, position_ids=positions.expand(2, -1), use_cache=False).logits
        assert (rows[0] - packed).abs().max() < TOLERANCE


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(build: Any, compiled: Any, tokens: torch.Tensor, reentrant: bool) -> None:
    from patterncc.integrations.transformers import register

    package, _ = compiled()
    model = build("Llama").train()
    model.set_attn_implementation(register(package))
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.zero_grad()
        model(input_ids=tokens, use_cache=False).logits.square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_autocast_and_compile(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    from patterncc.integrations.transformers import register

    package, _ = compiled()
    model = build("Llama")
    model.set_attn_implementation(register(package))
    plain = model(input_ids=tokens).logits
    traced = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert (traced(input_ids=tokens, use_cache=False).logits - plain).abs().max() < TOLERANCE
    with torch.autocast("cpu", torch.bfloat16):
        half = model(input_ids=tokens).logits
    assert (half.float() - plain).norm() < 0.05 * plain.norm()  # bfloat16 has 8 bits


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_with_padding(build: Any, compiled: Any, tokens: torch.Tensor, dtype: torch.dtype) -> None:
    """In training, in generation, and where a row is all padding; queries come in float32 and values do not."""
    from patterncc.integrations.transformers import PatternCache, register

    package, _ = compiled()
    model = build("Llama")
    model.set_attn_implementation(register(package))
    mask = torch.ones_like(tokens)
    mask[1, :19] = 0
    plain = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits[mask.bool()]
    with torch.autocast("cpu", dtype):
        half = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        for options in ({}, {"past_key_values": PatternCache(model)}):
            model.generate(tokens, attention_mask=mask, max_new_tokens=3, do_sample=False, **options)
        assert model(input_ids=tokens, attention_mask=torch.zeros_like(mask), use_cache=False).logits.isfinite().all()
    assert (half[mask.bool()].float() - plain).norm() < 0.05 * plain.norm()  # bfloat16 has 8 bits
    half.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_attention_heads": 8, "num_key_value_heads": 4}, r"8 heads, the pattern tiny has 4 \(line 3: heads: 4\)"),
        ({"num_key_value_heads": 4}, r"4 KV heads, the pattern tiny has 2 \(line 4"),
        ({"head_dim": 32}, r"32 numbers a head, the pattern tiny has 16 \(line 5"),
        ({"num_hidden_layers": 2}, r"2 layers, the pattern tiny has 3 \(line 6"),
    ],
)
def test_models_that_do_not_fit_are_refused(
    build: Any, compiled: Any, tokens: torch.Tensor, change: Any, said: str
) -> None:
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import register

    package, _ = compiled()
    model = build("Llama", **change)
    model.set_attn_implementation(register(package))
    with pytest.raises(UsageError, match=said):
        model(input_ids=tokens)


def test_sizes_of_single_layers_are_compared(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import register

    name, said, changes = FAMILIES["laguna"]
    package, _ = compiled(TEXT.split("shards:")[0].replace("name: tiny", "name: laguna") + said)
    model = build(name, **changes | {"num_attention_heads_per_layer": [6, 4, 8]})
    model.set_attn_implementation(register(package))
    with pytest.raises(UsageError, match="the model has 8 heads, the pattern laguna has 6 in layer 2"):
        model(input_ids=tokens)


@pytest.mark.parametrize(("name", "said"), [("gemma2", "caps its scores at 0.5"), ("gpt_oss", "has learned sinks")])
def test_caps_and_sinks_that_the_pattern_does_not_say_are_refused(
    build: Any, compiled: Any, tokens: torch.Tensor, name: str, said: str
) -> None:
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import register

    package, _ = compiled()
    model = build(FAMILIES[name][0], **FAMILIES[name][2])
    model.set_attn_implementation(register(package))
    with pytest.raises(UsageError, match=said):
        model(input_ids=tokens)


def test_a_scale_that_the_pattern_states_is_the_models(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import register

    model = build(FAMILIES["gemma3"][0], **FAMILIES["gemma3"][2] | {"query_pre_attn_scalar": 4})
    plain, _ = compiled()
    model.set_attn_implementation(register(plain))
    wanted = model(input_ids=tokens).logits  # a pattern that states none takes the model's
    stated, _ = compiled(TEXT + "scale: 0.5\n")
    model.set_attn_implementation(register(stated))
    assert torch.equal(model(input_ids=tokens).logits, wanted)
    other, _ = compiled(TEXT + "scale: 0.25\n")
    model.set_attn_implementation(register(other))
    with pytest.raises(UsageError, match=r"the model scales its scores by 0\.5, the pattern \w+ by 0\.25 \(line "):
        model(input_ids=tokens)


def test_what_a_pattern_does_not_do_is_refused(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import register

    package, _ = compiled()
    model = build("Llama", attention_dropout=0.1)
    model.set_attn_implementation(register(package))
    model(input_ids=tokens)  # evaluation has no dropout
    with pytest.raises(UsageError, match=r"attention_dropout is 0\.1"):
        model.train()(input_ids=tokens)


def test_names(compiled: Any) -> None:
    from patterncc.integrations.transformers import register

    package, _ = compiled()
    other, _ = compiled(TEXT.replace("offset: h", "offset: 0"))
    flash, _ = compiled(TEXT.replace("name: tiny", "name: my_flash"))
    assert register(package) == register(package) == "patterncc_tiny"
    assert register(other) != "patterncc_tiny"
    assert "flash" not in register(flash)
