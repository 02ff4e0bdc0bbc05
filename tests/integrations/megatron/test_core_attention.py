"""Megatron-core models on gloo: one rank equals the dense mask, several ranks equal one, and fewer bytes travel."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.integrations.megatron.run_ranks import LENGTH, TEXT

pytest.importorskip("megatron.core")
pytestmark = pytest.mark.peers

SCRIPT = Path(__file__).parent / "run_ranks.py"


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """The results of all ranks of a run, once a kind and number."""
    folder = tmp_path_factory.mktemp("megatron")
    (folder / "tiny.yaml").write_text(TEXT)
    known: dict[tuple[str, int], list[dict]] = {}

    def run(kind: str, ranks: int) -> list[dict]:
        if (kind, ranks) not in known:
            out, at = folder / f"{kind}{ranks}", port()
            command = [sys.executable, str(SCRIPT)]
            each = [
                subprocess.Popen([*command, str(rank), str(ranks), kind, str(at), str(out)], stderr=subprocess.PIPE)
                for rank in range(ranks)
            ]
            for process in each:
                _, said = process.communicate(timeout=240)
                assert process.returncode == 0, said.decode()[-2000:]
            known[kind, ranks] = [torch.load(f"{out}.{rank}") for rank in range(ranks)]
        return known[kind, ranks]

    return run


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_context_over_ranks_equals_one(ran, ranks: int) -> None:  # type: ignore[no-untyped-def]
    one, several = ran("context", 1)[0], ran("context", ranks)[0]
    assert (one["logits"] - several["logits"]).abs().max() < 1e-5  # float32, two layers
    for a, b in zip(one["gradients"], several["gradients"], strict=True):
        assert (a - b).norm() <= 1e-4 * a.norm() + 1e-6


def test_two_tensor_parallel_ranks_equal_one(ran) -> None:  # type: ignore[no-untyped-def]
    """Each rank has two of the four heads, and the offsets of these; activations are recomputed."""
    one, several = ran("context", 1)[0], ran("tensor", 2)
    assert [result["offsets"] for result in several] == [[0, 0], [2, 2]]
    for result in several:
        assert (one["logits"] - result["logits"]).abs().max() < 1e-5  # float32, two layers
        for a, b in zip(one["norms"], result["norms"], strict=True):
            assert (a - b).norm() <= 1e-4 * a.norm() + 1e-6


@pytest.mark.parametrize("ranks", [2, 4])
def test_only_keys_that_are_read_travel(ran, ranks: int) -> None:  # type: ignore[no-untyped-def]
    """Bytes counted as they are sent, in the forward pass of both layers, against an all-gather of K and V."""
    import patterncc

    batch, pairs = 2, [(a, b) for a in range(ranks) for b in range(ranks) if a != b]
    plans = [patterncc.load(TEXT).exchange_plan(LENGTH, ranks, layer=layer) for layer in range(2)]
    dense, sparse = (batch * sum(plan.bytes(a, b, torch.float32) for a, b in pairs) for plan in plans)
    sent = [result["sent"] for result in ran("context", ranks)]
    assert sum(counts["keys"] for counts in sent) == dense + sparse
    gathered = 2 * LENGTH * (ranks - 1) * 2 * 16 * 4 * batch  # K and V, tokens, ranks, KV heads, head_dim, bytes
    assert dense == gathered / 2  # layer 0 is dense: causality alone spares half
    assert sparse < 0.3 * gathered
    assert all(counts["layout"] > 0 for counts in sent)


def test_one_rank_equals_the_dense_mask(ran, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The layer's module alone, against attention under the mask of the definition."""
    from megatron.core.packed_seq_params import PackedSeqParams
    from megatron.core.transformer import TransformerConfig

    from patterncc.errors import UsageError
    from patterncc.integrations.megatron import CoreAttention
    from patterncc.language import loads
    from patterncc.reference import attention

    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT)
    config = TransformerConfig(
        num_layers=2, hidden_size=64, num_attention_heads=4, num_query_groups=2, kv_channels=16, attention_dropout=0.0
    )
    module = CoreAttention(config, 2, None, "self", pattern=path)
    q, k, v = (torch.randn(LENGTH - 3, 2, heads, 16, requires_grad=True) for heads in (4, 2, 2))
    out = module(q, k, v, None)
    exact = [x.detach().double().permute(1, 2, 0, 3) for x in (q, k, v)]
    expected, _ = attention(loads(TEXT), *exact, layer=1)
    assert (out.unflatten(2, (4, 16)).permute(1, 2, 0, 3) - expected).norm() < 1e-6 * expected.norm()
    starts = torch.tensor([0, 50, LENGTH - 3], dtype=torch.int32)
    most = LENGTH - 53
    packed = PackedSeqParams(
        qkv_format="thd", cu_seqlens_q=starts, cu_seqlens_kv=starts, max_seqlen_q=most, max_seqlen_kv=most
    )
    whole = module(q[:, 0], k[:, 0], v[:, 0], None, packed_seq_params=packed)
    parts = [module(*(x[a:b, :1] for x in (q, k, v)), None)[:, 0] for a, b in ((0, 50), (50, LENGTH - 3))]
    assert (whole - torch.cat(parts)).abs().max() < 1e-6
    path.write_text(TEXT + "\nscale: 0.7\n")
    scaled, _ = attention(loads(TEXT), *exact, layer=1, scale=0.7)
    out = CoreAttention(config, 2, None, "self", pattern=path)(q, k, v, None)
    assert (out.unflatten(2, (4, 16)).permute(1, 2, 0, 3) - scaled).norm() < 1e-6 * scaled.norm()
    with pytest.raises(UsageError, match=r"the model scales its scores by 0\.5, the pattern megatron_tiny by 0\.7"):
        CoreAttention(config, 2, None, "self", softmax_scale=0.5, pattern=path)
    path.write_text(TEXT)
    config.num_attention_heads = 8
    with pytest.raises(UsageError, match=r"8 heads, the pattern megatron_tiny has 4 \(line 3: heads: 4\)"):
        CoreAttention(config, 1, None, "self", pattern=path)


def test_less_travels_than_an_all_gather(tmp_path: Path) -> None:
    """What the plan sends, and q, k, v and out moved between the layouts, against all K and V sent to all ranks."""
    import patterncc

    package, ranks, length = patterncc.load("s2_strided"), 8, 131_072
    plan = package.exchange_plan(length, ranks)
    sent = sum(plan.bytes(a, b) for a in range(ranks) for b in range(ranks) if a != b)
    head = package.PATTERN["head_dim"] * 2
    moved = length * head * (2 * package.PATTERN["heads"] + 2 * package.PATTERN["kv_heads"])
    gathered = 2 * length * (ranks - 1) * package.PATTERN["kv_heads"] * head
    assert sent < 0.2 * gathered
    assert sent + moved < gathered
