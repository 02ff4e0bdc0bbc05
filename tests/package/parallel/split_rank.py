"""One rank of a split context, a process of its own: python split_rank.py FOLDER RANK RANKS. Needs torch only."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed


def main(folder: Path, rank: int, ranks: int) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    sent: list[int] = []
    swap = distributed.all_to_all_single

    def counting(taken, given, lengths, parts, **options):  # type: ignore[no-untyped-def]
        assert parts[rank] == 0, "a rank sends itself nothing"
        sent.append(given.numel() * given.element_size())
        return swap(taken, given, lengths, parts, **options)

    distributed.all_to_all_single = counting
    torch.save([run(task, rank, ranks, sent) for task in torch.load(folder / "tasks.pt")], folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


def drawn(length: int, v_dim: int) -> list[torch.Tensor]:
    """q, k, v, and gradients of the output and the LSE, the same wherever they are drawn."""
    make = torch.Generator().manual_seed(0)
    shapes = (4, length, 32), (2, length, 32), (2, length, v_dim), (4, length, v_dim), (4, length)
    return [torch.randn(2, *shape, dtype=torch.float64, generator=make) for shape in shapes]


def run(task: dict[str, Any], rank: int, ranks: int, sent: list[int]) -> dict[str, Any]:
    """Attention and gradients of this rank's tokens, the bytes it sent and those that the plan says."""
    package, length = importlib.import_module(task["name"]), task["length"]
    plan = package.exchange_plan(length, task["ranks"])
    own = slice(*plan.queries(rank))
    *leaves, dout, dlse = (x.float() for x in drawn(length, package.PATTERN["v_head_dim"]))
    q, k, v = (x[:, :, own].clone().requires_grad_() for x in leaves)
    sent.clear()
    dtype = torch.bfloat16 if task.get("autocast") else torch.float32
    with torch.autocast("cpu", dtype, enabled="autocast" in task):
        out, lse = package.attention_split(q, k, v.to(dtype), plan, return_lse=True)
    torch.autograd.backward((out, lse), (dout[:, :, own].to(dtype), dlse[:, :, own]))
    found = {"out": out.detach(), "lse": lse.detach(), "dq": q.grad, "dk": k.grad, "dv": v.grad}
    found |= dict(zip(("sent_forward", "sent_backward"), sent, strict=True))
    found["planned_forward"] = 2 * sum(plan.bytes(rank, other, dtype) for other in range(ranks))  # a batch of two
    found["planned_backward"] = 2 * sum(plan.bytes(other, rank, dtype) for other in range(ranks))
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
