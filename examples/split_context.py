"""One context split over ranks: the loss of all ranks together equals that of one, and fewer bytes travel.

torchrun --nproc-per-node 4 examples/split_context.py
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist

import patterncc

PATTERN = """\
pattern: 1
name: split_example
heads: 8
kv_heads: 4
head_dim: 32
block: 16
shards: [{heads: all, local: 2, stride: 4, offset: g}]
"""
LENGTH = 1000  # tokens; the last block is cut


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    package = patterncc.load(PATTERN)
    plan = package.exchange_plan(LENGTH, ranks)

    torch.manual_seed(0)  # every rank draws the whole context, and takes its own part
    heads, kv_heads, width = (package.PATTERN[key] for key in ("heads", "kv_heads", "head_dim"))
    whole = [torch.randn(1, n, LENGTH, width, requires_grad=True) for n in (heads, kv_heads, kv_heads)]
    first, stop = plan.queries(rank)
    mine = [x[:, :, first:stop].detach().requires_grad_() for x in whole]

    loss = package.attention_split(*mine, plan).square().sum()
    loss.backward()
    dist.all_reduce(total := loss.detach().clone())

    alone = package.attention(*whole).square().sum()
    alone.backward()
    gaps = [(a.grad - b.grad[:, :, first:stop]).abs().max() for a, b in zip(mine, whole, strict=True)]
    dist.all_reduce(worst := torch.stack(gaps).max(), dist.ReduceOp.MAX)
    if rank == 0:
        sent = sum(plan.bytes(a, b, torch.float32) for a in range(ranks) for b in range(ranks) if a != b)
        gathered = 2 * LENGTH * (ranks - 1) * kv_heads * width * 4
        print(f"loss of {ranks} ranks {total:.4f}, of one {alone:.4f}; largest difference of a gradient {worst:.1e}")
        print(f"K and V sent: {sent:,} bytes; an all-gather sends {gathered:,}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
