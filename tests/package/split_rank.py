"""One rank of a split context, a process of its own: python split_rank.py FOLDER RANK RANKS. Needs torch only."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import torch
from torch import distributed


def main(folder: Path, rank: int, ranks: int) -> None:
    task = torch.load(folder / "task.pt")
    package = importlib.import_module(Path(task["path"]).name)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    sent: list[int] = []
    swap = distributed.all_to_all_single

    def counting(taken, given, lengths, parts, **options):  # type: ignore[no-untyped-def]
        assert parts[rank] == 0, "a rank sends itself nothing"
        sent.append(given.numel() * given.element_size())
        return swap(taken, given, lengths, parts, **options)

    distributed.all_to_all_single = counting
    plan = package.exchange_plan(task["length"], task["ranks"])
    first, stop = plan.queries(rank)
    torch.manual_seed(0)
    q, k, v, dout = (torch.randn(2, n, task["length"], 32, dtype=torch.float64).float() for n in (4, 2, 2, 4))
    dlse = torch.randn(2, 4, task["length"], dtype=torch.float64).float()
    q, k, v = (x[:, :, first:stop].clone().requires_grad_() for x in (q, k, v))
    out, lse = package.attention_split(q, k, v, plan, return_lse=True)
    torch.autograd.backward((out, lse), (dout[:, :, first:stop], dlse[:, :, first:stop]))
    planned = [2 * sum(plan.bytes(rank, r, q.dtype) for r in range(ranks))]  # a batch of two
    planned.append(2 * sum(plan.bytes(r, rank, q.dtype) for r in range(ranks)))
    found = {"out": out.detach(), "lse": lse.detach(), "dq": q.grad, "dk": k.grad, "dv": v.grad}
    found |= dict(zip(("sent_forward", "sent_backward"), sent, strict=True))
    torch.save({**found, "planned_forward": planned[0], "planned_backward": planned[1]}, folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
