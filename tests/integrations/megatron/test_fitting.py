"""What Megatron asks of attention beside a pattern: right or refused, never left out in silence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from patterncc.errors import UsageError
from tests.integrations.megatron.run_ranks import TEXT

pytest.importorskip("megatron.core")
pytestmark = pytest.mark.peers
SIZES = {
    "num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "num_query_groups": 2, "kv_channels": 16,
    "attention_dropout": 0.0,
}  # fmt: skip
LENGTH = 67


def module(text: str = TEXT, mask_type: str | None = "causal", layer: int = 2, **changes: Any) -> Any:
    from megatron.core.transformer import TransformerConfig
    from megatron.core.transformer.enums import AttnMaskType

    import patterncc
    from patterncc.integrations.megatron import CoreAttention

    kind = AttnMaskType[mask_type] if mask_type else None
    return CoreAttention(TransformerConfig(**(SIZES | changes)), layer, kind, "self", pattern=patterncc.load(text))


def inputs(tokens: int = LENGTH) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    return [torch.randn(tokens, 2, heads, 16, generator=draw) for heads in (4, 2, 2)]


def hidden(tokens: int = LENGTH) -> torch.Tensor:
    """Megatron's causal mask: true where nothing is attended."""
    return torch.ones(1, 1, tokens, tokens, dtype=torch.bool).triu(1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"window_size": (64, 0)}, "window_size"),
        ({"softmax_type": "off-by-one"}, "softmax_type"),
        ({"softmax_type": "learnable"}, "softmax_type"),
        ({"qk_clip": True}, "qk_clip"),
        ({"log_max_attention_logit": True}, "log_max_attention_logit"),
        ({"flash_decode": True}, "flash_decode"),
    ],
)
def test_options_that_change_attention_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=rf"{words} is .*: it asks for"):
        module(**changes)


def test_a_layer_of_multi_token_prediction_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match=r"layer 2 is behind the 2 layers .*multi-token prediction"):
        module(layer=3)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", ["padding", "causal", "no_mask", "padding_causal", "arbitrary", "causal_bottom_right"])
def test_kinds_of_masks(causal: bool, kind: str) -> None:
    """Those that are the pattern's run, and others are refused."""
    text = TEXT if causal else TEXT + "causal: false\n"
    attend = module(text, kind)
    if kind in (("causal", "causal_bottom_right") if causal else ("no_mask", "padding")):
        assert torch.equal(attend(*inputs(), None), module(text, None)(*inputs(), None))
    else:
        with pytest.raises(UsageError, match=f"attn_mask_type is {kind}; the pattern megatron_tiny is"):
            attend(*inputs(), None)


def test_masks_other_than_causality_are_refused() -> None:
    attend = module()
    plain = attend(*inputs(), None)
    assert torch.equal(attend(*inputs(), hidden()), plain)
    assert torch.equal(attend(*inputs(), hidden().expand(2, -1, -1, -1)), plain)
    documents, padding = hidden(), hidden().repeat(2, 1, 1, 1)
    documents[:, :, 40:, :40] = True
    padding[1, :, :, :9] = True
    for mask in (documents, padding, ~hidden()):
        with pytest.raises(UsageError, match="attention_mask is not causality alone"):
            attend(*inputs(), mask)
    mask = hidden()
    attend(*inputs(), mask)
    mask.copy_(documents)
    with pytest.raises(UsageError, match="attention_mask is not causality alone"):
        attend(*inputs(), mask)  # written to since it was looked at
    with pytest.raises(UsageError, match=r"attention_mask is \[1, 1, 66, 66\] for 67 queries and 67 keys"):
        attend(*inputs(), hidden(66))
    whole = module(TEXT + "causal: false\n", "padding")
    whole(*inputs(), torch.zeros_like(padding))
    with pytest.raises(UsageError, match="attention_mask is not empty alone"):
        whole(*inputs(), padding)


def test_masks_of_a_rank_of_a_context() -> None:
    """The rows of its two chunks."""
    from patterncc.integrations.megatron.chunks import positions
    from patterncc.integrations.megatron.masking import check_mask

    class Group:
        def rank(self) -> int:
            return 1

        def size(self) -> int:
            return 2

    attend, rows = module(), positions(64, Group())
    assert rows.tolist() == list(range(16, 48))
    mask = hidden(64)[:, :, rows]
    check_mask(attend.package, mask, rows, 64)
    other = mask.clone()
    other[..., 30, 3] = True
    with pytest.raises(UsageError, match="not causality alone"):
        check_mask(attend.package, other, rows, 64)


def test_a_static_cache_decodes() -> None:
    """Megatron says no_mask of tokens that come after those of its cache."""
    from megatron.core.transformer.enums import AttnMaskType

    q, k, v = inputs()
    attend = module()
    whole = attend(q, k, v, None)
    for n in (1, 5):
        part = attend(q[-n:], k, v, None, attn_mask_type=AttnMaskType.no_mask)
        assert (part - whole[-n:]).abs().max() < 1e-6


@pytest.mark.parametrize("most", [None, 30])
def test_packed_sequences_with_padding_between_them(most: int | None) -> None:
    """They begin where the padded ones do; what is behind a sequence is not read. Longer than max_seqlen is none."""
    from megatron.core.packed_seq_params import PackedSeqParams

    def starts(*lengths: int) -> torch.Tensor:
        return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)

    q, k, v = inputs()
    real, padded = starts(25, 1, 30), starts(32, 3, 32)
    for x in (k, v):
        x[25:32], x[33:35], x[65:] = (torch.nan,) * 3
    packed = PackedSeqParams(
        qkv_format="thd", cu_seqlens_q=real, cu_seqlens_kv=real, cu_seqlens_q_padded=padded,
        cu_seqlens_kv_padded=padded, max_seqlen_q=most, max_seqlen_kv=most,
    )  # fmt: skip
    attend = module(mask_type="padding_causal")
    out = attend(*(x[:, 0] for x in (q, k, v)), None, packed_seq_params=packed)
    for begin, end in ((0, 25), (32, 33), (35, 65)):
        alone = module()(*(x[begin:end, :1] for x in (q, k, v)), None)[:, 0]
        assert (out[begin:end] - alone).abs().max() < 1e-6
    packed.cu_seqlens_q_padded = packed.cu_seqlens_kv_padded = None
    near = attend(*(x[:65, 0].nan_to_num() for x in (q, k, v)), None, packed_seq_params=packed)
    assert near.shape == (65, 64)  # without max_seqlen the lengths are looked at
    with pytest.raises(UsageError, match="a pattern that is not causal attends it"):
        packed.cu_seqlens_q_padded = padded
        whole = module(TEXT + "causal: false\n", "padding")
        whole(*(x[:, 0] for x in (q, k, v)), None, packed_seq_params=packed)
