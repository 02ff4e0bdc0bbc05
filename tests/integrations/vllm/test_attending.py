"""One layer in vLLM's hands: keys into its pages, of any layout, and attention over them as the definition has it."""

# ruff: noqa: E402

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is not installed; `python3 run.py vllm` makes an environment with it")
pytestmark = pytest.mark.peers

from patterncc.errors import UsageError
from patterncc.integrations.vllm import attending
from patterncc.integrations.vllm.backend import PatternBackend
from patterncc.integrations.vllm.metadata import PatternMetadata, PatternMetadataBuilder
from patterncc.language import loads
from patterncc.reference import attention

HEADS, KV_HEADS, DIM, SIZE, PAGES = 4, 2, 16, 16, 14
TEXT = f"""pattern: 1
name: served
heads: {HEADS}
kv_heads: {KV_HEADS}
head_dim: {DIM}
layers: 2
block: 16
shards: [{{heads: all, local: 2, stride: 3, offset: h}}]
promises: {{}}
"""
CAPPED = TEXT + "softcap: 20.0\nsinks: learned\n"


def config(text: str, **changes: Any) -> Any:
    model = SimpleNamespace(
        is_hybrid=False, get_total_num_kv_heads=lambda: KV_HEADS, hf_text_config=SimpleNamespace(num_hidden_layers=2)
    )
    facts = {
        "additional_config": {"patterncc": text},
        "speculative_config": None,
        "kv_transfer_config": None,
        "parallel_config": SimpleNamespace(decode_context_parallel_size=1),
        "model_config": model,
        "scheduler_config": SimpleNamespace(disable_hybrid_kv_cache_manager=False),
        "compilation_config": SimpleNamespace(static_forward_context={}),
        "max_in_flight_tokens": 64,
    }
    return SimpleNamespace(**facts | changes)


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A layer as vLLM makes one on a rank of a number of tensor-parallel ranks."""

    def make(
        text: str = TEXT, number: int = 1, rank: int = 0, ranks: int = 1, of: Any = None,
        heads: int = HEADS, kv_heads: int = KV_HEADS, dim: int = DIM, **options: Any,
    ) -> Any:  # fmt: skip
        known = of or config(text)
        monkeypatch.setattr(attending, "get_current_vllm_config", lambda: known)
        monkeypatch.setattr(attending, "get_tensor_model_parallel_rank", lambda: rank)
        monkeypatch.setattr(attending, "get_tensor_model_parallel_world_size", lambda: ranks)
        impl = attending.PatternImpl(heads // ranks, dim, dim**-0.5, kv_heads // ranks, **options)
        made = SimpleNamespace(layer_name=f"model.layers.{number}.self_attn.attn", impl=impl, head_size_v=dim)
        made.attn_backend = PatternBackend
        known.compilation_config.static_forward_context[made.layer_name] = made
        impl.process_weights_after_loading(torch.float32)
        return made

    return make


def cache(kv_heads: int, layout: str) -> torch.Tensor:
    """[pages, kv_heads, page size, K and V], NaN where nothing is written, as vLLM lays pages out."""
    if layout == "heads first":
        return torch.full((PAGES, kv_heads, SIZE, 2 * DIM), float("nan"))
    return torch.full((PAGES, SIZE, kv_heads, 2 * DIM), float("nan")).transpose(1, 2)


def batch(lengths: list[int], news: list[int], padding: int = 0) -> tuple[PatternMetadata, torch.Tensor]:
    """The metadata of requests whose newest tokens are computed, in pages in no order, and the slots of all tokens."""
    draw = torch.Generator().manual_seed(1)
    free = (torch.randperm(PAGES - 1, generator=draw) + 1).tolist()  # page 0 is vLLM's null page
    table = torch.zeros(len(lengths) + padding, 5, dtype=torch.int32)
    for request, length in enumerate(lengths):
        for page in range(-(-length // SIZE)):
            table[request, page] = free.pop()
    slots = [table[r, t // SIZE].item() * SIZE + t % SIZE for r, length in enumerate(lengths) for t in range(length)]
    starts = torch.tensor([0, *news, *[0] * padding], dtype=torch.int32).cumsum(0).int()
    made = PatternMetadata(sum(news), max(news), starts, torch.tensor(lengths + [0] * padding).int(), table)
    return made, torch.tensor(slots)


def expected(text: str, lengths: list[int], news: list[int], q: Any, k: Any, v: Any, sinks: Any) -> torch.Tensor:
    pattern, out, begin, first = loads(text), [], 0, 0
    for length, new in zip(lengths, news, strict=True):
        keys, values = (x[begin : begin + length].transpose(0, 1)[None].double() for x in (k, v))
        queries = q[first : first + new].transpose(0, 1)[None].double()
        own, _ = attention(pattern, queries, keys, values, layer=1, sinks=sinks)  # its queries are the last tokens
        out.append(own[0].transpose(0, 1))
        begin, first = begin + length, first + new
    return torch.cat(out)


@pytest.mark.parametrize("layout", ["heads first", "tokens first"])
@pytest.mark.parametrize("text", [TEXT, CAPPED], ids=["plain", "capped, sinks"])
@pytest.mark.parametrize("news", [[1, 1, 1], [40, 1, 7]], ids=["decode", "mixed"])
def test_what_is_written_is_attended(layer: Any, layout: str, text: str, news: list[int]) -> None:
    torch.manual_seed(2)
    lengths = [75, 33, 40]
    q, k, v = (torch.randn(n, heads, DIM) for n, heads in ((sum(news), HEADS), (148, KV_HEADS), (148, KV_HEADS)))
    sinks = torch.randn(HEADS) if text == CAPPED else None
    made = layer(text, logits_soft_cap=20.0 if text == CAPPED else None, sinks=sinks)
    metadata, slots = batch(lengths, news)
    pages, padded = cache(KV_HEADS, layout), torch.cat([slots, torch.tensor([-1, -1])])
    more = torch.full((2, KV_HEADS, DIM), 7.0)
    made.impl.do_kv_cache_update(made, torch.cat([k, more]), torch.cat([v, more]), pages, padded)
    output = torch.full((sum(news) + 3, HEADS, DIM), 5.0)
    query = torch.cat([q, torch.full((3, HEADS, DIM), float("nan"))])
    made.impl.forward(made, query, k, v, pages, metadata, output)
    wanted = expected(text, lengths, news, q, k, v, sinks)
    assert (output[:-3] - wanted).abs().max() < 1e-5  # float32
    assert (output[-3:] == 5).all()  # what pads the batch is left alone
    assert (
        pages[:, :, :, 0].isnan().sum() == (PAGES * SIZE - 148 - 1) * KV_HEADS
    )  # padding went into one slot of page 0


def test_a_batch_that_pads_a_graph_changes_nothing(layer: Any) -> None:
    """As vLLM replays a captured batch: more requests than there are, of no tokens."""
    torch.manual_seed(3)
    made, lengths = layer(), [75, 33]
    q, k, v = (torch.randn(n, heads, DIM) for n, heads in ((2, HEADS), (108, KV_HEADS), (108, KV_HEADS)))
    metadata, slots = batch(lengths, [1, 1], padding=2)
    pages = cache(KV_HEADS, "heads first")
    made.impl.do_kv_cache_update(made, k, v, pages, slots)
    output = torch.full((4, HEADS, DIM), 5.0)
    metadata.tokens = 4
    made.impl.forward(made, torch.cat([q, torch.full((2, HEADS, DIM), float("nan"))]), k, v, pages, metadata, output)
    assert (output[:2] - expected(TEXT, lengths, [1, 1], q, k, v, None)).abs().max() < 1e-5
    assert (output[2:] == 0).all()


def test_ranks_compute_the_heads_of_the_whole_model(layer: Any) -> None:
    torch.manual_seed(4)
    lengths, news = [75, 33], [9, 1]
    q, k, v = (torch.randn(n, heads, DIM) for n, heads in ((10, HEADS), (108, KV_HEADS), (108, KV_HEADS)))
    wanted = expected(TEXT, lengths, news, q, k, v, None)
    for rank in range(2):
        made = layer(rank=rank, ranks=2)
        metadata, slots = batch(lengths, news)
        pages, own = cache(1, "tokens first"), slice(rank, rank + 1)
        made.impl.do_kv_cache_update(made, k[:, own], v[:, own], pages, slots)
        output = torch.empty(10, 2, DIM)
        made.impl.forward(made, q[:, 2 * rank : 2 * rank + 2], k, v, pages, metadata, output)
        assert (output - wanted[:, 2 * rank : 2 * rank + 2]).abs().max() < 1e-5


def test_a_profiling_run_has_no_batch(layer: Any) -> None:
    made, output = layer(), torch.full((3, HEADS, DIM), float("nan"))
    assert not made.impl.forward(made, output, output, output, torch.tensor([]), None, output).any()


def test_layers_get_the_backend_of_their_kind(layer: Any) -> None:
    text = TEXT + "dense_layers: 0\n"
    known = config(text)
    first, second = (layer(text, number, of=known).attn_backend for number in (0, 1))
    assert (first.kind, second.kind) == ((text, (0,), 64), (text, (1,), 64))
    known.scheduler_config.disable_hybrid_kv_cache_manager = True
    assert layer(text, 1, of=known).attn_backend.kind == (text, (0, 1), 64)


def test_a_layer_with_a_backend_of_its_own_is_refused(layer: Any) -> None:
    made = layer()
    made.attn_backend = type("Chunked", (PatternBackend,), {})
    with pytest.raises(UsageError, match="changes what its backend attends"):
        made.impl.process_weights_after_loading(torch.float32)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kv_cache_dtype": "fp8"}, "kv_cache_dtype is fp8"),
        ({"sliding_window": 128}, "sliding window of 128"),
        ({"alibi_slopes": [1.0]}, "ALiBi"),
        ({"logits_soft_cap": 30.0}, "caps its scores at 30"),
        ({"attn_type": "encoder"}, "encoder attention"),
        ({"kv_sharing_target_layer_name": "model.layers.0.attn"}, "model.layers.0.attn"),
        ({"of": config(TEXT, speculative_config=object())}, "speculative decoding"),
        ({"of": config(TEXT.replace(f"kv_heads: {KV_HEADS}", f"kv_heads: {HEADS}"))}, "2 KV heads, .* has 4 .line 4: "),
        ({"of": config("no_such_pattern")}, "no_such_pattern"),
        ({"of": config(TEXT, additional_config={})}, "names no pattern"),
        ({"number": 2}, "layers.2"),
    ],
)
def test_what_does_not_fit_is_refused_when_the_layer_is_made(layer: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        layer(**options)


def test_a_batch_that_is_not_causal_is_refused() -> None:
    builder = object.__new__(PatternMetadataBuilder)
    with pytest.raises(UsageError, match="not causal"):
        builder.build(0, SimpleNamespace(causal=False))  # type: ignore[arg-type]


def test_a_layer_of_another_shape_is_computed_by_its_own_package(layer: Any) -> None:
    text = TEXT + "layouts: [{layers: 1, heads: 2, kv_heads: 1, head_dim: 32, shards: [{heads: all, local: 2}]}]\n"
    known, length, dim = config(text), 70, 32
    assert layer(text, 0, of=known).attn_backend.kind == (text, (0,), 64)
    made = layer(text, 1, of=known, heads=2, kv_heads=1, dim=dim)
    assert made.attn_backend.kind == (text, (1,), 64)
    with pytest.raises(UsageError, match="the model has 4 heads in layer 1, the pattern served has 2"):
        layer(text, 1, of=config(text))
    torch.manual_seed(5)
    q, k, v = (torch.randn(n, heads, dim) for n, heads in ((9, 2), (length, 1), (length, 1)))
    metadata, slots = batch([length], [9])
    pages, output = torch.full((PAGES, 1, SIZE, 2 * dim), float("nan")), torch.empty(9, 2, dim)
    made.impl.do_kv_cache_update(made, k, v, pages, slots)
    made.impl.forward(made, q, k, v, pages, metadata, output)
    wanted, _ = attention(loads(text), *(x.transpose(0, 1)[None] for x in (q, k, v)), layer=1)
    assert (output - wanted[0].transpose(0, 1)).abs().max() < 1e-5


def test_values_of_another_width_need_a_vllm_that_asks_for_no_shape(
    layer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = layer()
    made.head_size_v, made.impl.layer = 8, None
    monkeypatch.setattr(attending.AttentionBackend, "get_kv_cache_shape", lambda *_: None, raising=False)
    with pytest.raises(UsageError, match="values of 8 numbers and keys of 16"):
        made.impl.layer_of(made)
    monkeypatch.delattr(attending.AttentionBackend, "get_kv_cache_shape")
    with pytest.raises(UsageError, match="the model has 8 numbers a value, the pattern served has 16"):
        made.impl.layer_of(made)
