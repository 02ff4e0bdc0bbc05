"""One rank of a model under tensor parallelism: torchrun --nproc-per-node 2 run_ranks.py MODEL PATTERN OUT."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM

from patterncc.integrations.transformers import PatternCache, register


def main(folder: str, pattern: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    name = register(pattern)
    model = AutoModelForCausalLM.from_pretrained(folder, tp_plan="auto", attn_implementation=name).eval()
    tokens = torch.randint(3, 97, (2, 85), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        logits = model(tokens, use_cache=False).logits
        held = model.generate(tokens, max_new_tokens=5, do_sample=False, past_key_values=PatternCache(model))
    weight = model.model.layers[0].self_attn.q_proj.weight
    weight = weight.to_local() if hasattr(weight, "to_local") else weight
    result = {"logits": logits, "tokens": held, "heads": len(weight) // model.config.head_dim}
    torch.save(result, f"{out}.{dist.get_rank()}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
