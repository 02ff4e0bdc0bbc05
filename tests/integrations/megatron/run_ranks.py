"""One rank of a small Megatron model on gloo: python run_ranks.py RANK RANKS KIND PORT OUT, KIND tensor or context."""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist

TEXT = """pattern: 1
name: megatron_tiny
heads: 4
kv_heads: 2
head_dim: 16
layers: 2
block: 16
shards: [{heads: all, local: 2, stride: 4, offset: h}]
dense_layers: 0
"""
LENGTH = 512


def build(pattern: str, context: int = 1, tensor: int = 1, **changes: object) -> torch.nn.Module:
    """A GPT of two layers, with the same weights on every rank of a context."""
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.transformer import TransformerConfig
    from megatron.core.transformer.spec_utils import ModuleSpec

    from patterncc.integrations.megatron import CoreAttention

    torch.manual_seed(7)
    sizes = {
        "num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "num_query_groups": 2, "kv_channels": 16,
        "ffn_hidden_size": 96, "context_parallel_size": context, "tensor_model_parallel_size": tensor,
        "use_cpu_initialization": True, "params_dtype": torch.float32, "pipeline_dtype": torch.float32,
        "attention_dropout": 0.0, "hidden_dropout": 0.0, "normalization": "RMSNorm", "add_bias_linear": False,
        "gradient_accumulation_fusion": False, "bias_dropout_fusion": False, "masked_softmax_fusion": False,
        "apply_rope_fusion": False, "persist_layer_norm": False,
    }  # fmt: skip
    layer = get_gpt_layer_local_spec(normalization="RMSNorm")
    layer.submodules.self_attention.submodules.core_attention = ModuleSpec(CoreAttention, params={"pattern": pattern})
    return GPTModel(
        config=TransformerConfig(**(sizes | changes)), transformer_layer_spec=layer, vocab_size=96,
        max_sequence_length=LENGTH, position_embedding_type="rope", parallel_output=False,
    )  # fmt: skip


def start(rank: int, ranks: int, kind: str, port: int) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(ranks))
    torch.set_num_threads(1)
    # megatron-core asks for a GPU in places that do not need one
    torch.cuda.current_device = lambda: "cpu"  # type: ignore[assignment,return-value]
    torch.cuda.get_rng_state, torch.cuda.set_rng_state = torch.get_rng_state, torch.set_rng_state  # type: ignore[assignment]
    tensor = torch.tensor
    torch.tensor = lambda *a, pin_memory=False, **k: tensor(*a, **k)  # type: ignore[assignment]
    torch.Tensor.cuda = lambda self, *a, **k: self  # type: ignore[assignment,method-assign]
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel import random

    random._get_cuda_rng_state = lambda *a, **k: torch.get_rng_state()
    random._set_cuda_rng_state = lambda state, *a, **k: torch.set_rng_state(state)
    sizes = {"context_parallel_size": ranks} if kind == "context" else {"tensor_model_parallel_size": ranks}
    parallel_state.initialize_model_parallel(**sizes)


def count() -> dict[str, int]:
    """The bytes that this rank sends to others from now on: keys and values that are read, and moves of layout."""
    from patterncc.integrations.megatron import core_attention

    sent, moving = {"keys": 0, "layout": 0}, []
    swap = dist.all_to_all_single

    def counted(out, data, output_split_sizes=None, input_split_sizes=None, group=None, **rest):  # type: ignore[no-untyped-def]
        ranks, rank = dist.get_world_size(group), dist.get_rank(group)
        sizes = input_split_sizes or [len(data) // ranks] * ranks
        others = sum(size for other, size in enumerate(sizes) if other != rank)
        sent["layout" if moving else "keys"] += others * data[0:1].numel() * data.element_size()
        return swap(out, data, output_split_sizes, input_split_sizes, group=group, **rest)

    def move(function):  # type: ignore[no-untyped-def]
        def moved(*given):  # type: ignore[no-untyped-def]
            moving.append(1)
            out = function(*given)
            moving.pop()
            return out

        return moved

    dist.all_to_all_single = counted
    core_attention.to_runs, core_attention.to_zigzag = map(move, (core_attention.to_runs, core_attention.to_zigzag))
    return sent


def main(rank: int, ranks: int, kind: str, port: int, out: str) -> None:
    start(rank, ranks, kind, port)
    again = {"recompute_granularity": "selective"} if kind == "tensor" else {}  # attention a second time, backward
    model = build(os.path.join(os.path.dirname(out), "tiny.yaml"), **{kind: ranks}, **again)
    torch.manual_seed(3)
    tokens = torch.randint(0, 96, (2, LENGTH))
    mine = torch.arange(LENGTH)
    if kind == "context":
        chunk = LENGTH // (2 * ranks)
        mine = torch.cat([mine[rank * chunk :][:chunk], mine[(2 * ranks - 1 - rank) * chunk :][:chunk]])
    counted = count()
    logits = model(tokens[:, mine], mine[None].expand(2, -1), None)
    sent = dict(counted)  # of the forward pass
    logits.float().pow(2).sum().backward()
    offsets = [layer.self_attention.core_attention.head_offset for layer in model.decoder.layers]
    norms = [p.grad.clone() for name, p in model.named_parameters() if "norm" in name]  # whole on every tensor rank
    result = {"offsets": offsets, "logits": logits.detach(), "norms": norms, "sent": sent}
    if kind == "context":
        gradients = [p.grad.clone() for p in model.parameters()]
        for gradient in gradients:
            dist.all_reduce(gradient)
        whole = torch.zeros(2, LENGTH, logits.shape[-1])
        whole[:, mine] = logits.detach()
        dist.all_reduce(whole)
        result |= {"logits": whole, "gradients": gradients}
    torch.save(result, f"{out}.{rank}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5])
