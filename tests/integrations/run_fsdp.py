"""One rank of a small model under FSDP2, or of a mesh: torchrun --nproc-per-node 2 run_fsdp.py OUT.

The ranks of a context are also those over which `fully_shard` splits the weights: each holds its own tokens of one
sequence, and gradients are summed by FSDP's reduce-scatter.
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import patterncc

PATTERN = """\
pattern: 1
name: fsdp_tiny
heads: 4
kv_heads: 2
head_dim: 16
layers: 2
block: 16
shards: [{heads: all, local: 2, stride: 4, offset: h}]
"""
LENGTH, WIDTH = 199, 64


class Attention(nn.Module):
    """Attention of this rank's tokens over those of all ranks of `group`, or of one rank without a group."""

    def __init__(self, package, layer: int) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.package, self.layer = package, layer
        self.qkv = nn.Linear(WIDTH, (4 + 2 + 2) * 16, bias=False)
        self.out = nn.Linear(4 * 16, WIDTH, bias=False)

    def forward(self, x: Tensor, group: object = None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (8, 16)).transpose(1, 2).split([4, 2, 2], 1)
        if group is None:
            out = self.package.attention(q, k, v, layer=self.layer)
        else:
            plan = self.package.exchange_plan(LENGTH, dist.get_world_size(group), layer=self.layer)
            out = self.package.attention_split(q, k, v, plan, group=group)
        return x + self.out(out.transpose(1, 2).flatten(2))


def build(package) -> nn.ModuleList:  # type: ignore[no-untyped-def]
    torch.manual_seed(1)
    return nn.ModuleList(Attention(package, layer) for layer in range(2))


def main(out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    package = patterncc.load(PATTERN)
    torch.manual_seed(0)
    whole = torch.randn(2, LENGTH, WIDTH)
    one = build(package)
    x = whole
    for layer in one:
        x = layer(x)
    x.square().sum().backward()

    mesh = init_device_mesh("cpu", (ranks,), mesh_dim_names=("context",))
    group = mesh["context"].get_group()
    first, stop = package.exchange_plan(LENGTH, ranks).queries(rank)
    several = build(package)
    for layer in several:
        fully_shard(layer, mesh=mesh["context"])
    y = whole[:, first:stop]
    for layer in several:
        y = layer(y, group)
    y.square().sum().backward()
    # FSDP averages gradients over its ranks; the loss is a sum over tokens
    gradients = [p.grad.full_tensor() * ranks for p in several.parameters()]
    result = {
        "output": (x[:, first:stop] - y).abs().max().item(),
        "gradients": [((a - b.grad).norm() / b.grad.norm()).item() for a, b in zip(gradients, one.parameters())],  # noqa: B905
        "sharded": [p.to_local().numel() / p.numel() for p in several.parameters()],
    }
    torch.save(result, f"{out}.{rank}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
