"""One of two processes that train a small model, sharded by FSDP2; writes its losses. Run by test_fsdp.py."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


class Layer(nn.Module):
    def __init__(self, package: object) -> None:
        super().__init__()
        self.package = package
        self.qkv, self.out = nn.Linear(32, 8 * 16), nn.Linear(4 * 16, 32)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (8, 16)).transpose(1, 2).split((4, 2, 2), dim=1)
        return x + self.out(self.package.attention(q, k, v).transpose(1, 2).flatten(2))  # type: ignore[attr-defined]


def train(model: nn.Module, batch: Tensor) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    losses = []
    for _ in range(4):
        loss = model(batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def main(folder: Path, rank: int) -> None:
    package = importlib.import_module("small")
    torch.manual_seed(0)
    model = nn.Sequential(Layer(package), Layer(package))
    batch = torch.randn(4, 61, 32)
    if rank < 0:  # one process with the whole batch
        torch.save(train(model, batch), folder / "whole.pt")
        return
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    torch.save(train(model, batch[2 * rank : 2 * rank + 2]), folder / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
