"""One rank of three, a process of its own: python split_failing.py FOLDER RANK. Needs torch and the package `split`.

What it finds goes to FOLDER/rankRANK.json: errors of splits in which ranks hold nothing, and what it raised, after how
many seconds, where another rank fails.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

split: Any = importlib.import_module("split") if __name__ == "__main__" else None
RANKS, HEADS, KV_HEADS, DIM = 3, 4, 2, 32
SPLITS = [(20, 3), (0, 3), (1, 3), (16, 3), (33, 3), (20, [0, 2, 2, 2]), (20, [0, 0, 0, 2]), (90, [0, 0, 4, 6])]


def main(folder: Path, rank: int) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    found: dict[str, Any] = {"errors": [error(rank, *task) for task in SPLITS]}
    for name, fail in FAILURES.items():
        group = distributed.new_group(backend="gloo")
        begin = time.monotonic()
        try:
            fail(rank, group)
            said = ""
        except Exception as raised:
            said = f"{type(raised).__name__}: {raised}"
        found[name] = said, time.monotonic() - begin
        (folder / f"rank{rank}.json").write_text(json.dumps(found))


def error(rank: int, length: int, ranks: int | list[int]) -> float:
    """The error of output, LSE and gradients of this rank's tokens, against attention in one process."""
    plan = split.exchange_plan(length, ranks)
    torch.manual_seed(0)
    q, k, v, dout = (torch.randn(1, n, length, DIM) for n in (HEADS, KV_HEADS, KV_HEADS, HEADS))
    dlse, own = torch.randn(1, HEADS, length), slice(*plan.queries(rank))
    whole = differentiated(lambda *x: split.attention(*x, return_lse=True), (q, k, v), dout, dlse)
    parts = [x[:, :, own] for x in (q, k, v)]
    part = differentiated(
        lambda *x: split.attention_split(*x, plan, return_lse=True), parts, dout[:, :, own], dlse[:, :, own]
    )
    return max(float((x - y[:, :, own]).norm()) / (1 + float(y.norm())) for x, y in zip(part, whole, strict=True))


def differentiated(attend: Callable[..., Any], inputs: Any, dout: Tensor, dlse: Tensor) -> tuple[Tensor, ...]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    out, lse = attend(*leaves)
    torch.autograd.backward((out, lse), (dout, dlse))
    return out.detach(), lse.detach(), *(x.grad for x in leaves)  # type: ignore[misc]


def attended(rank: int, group: Any, heads: int = HEADS, short: int = 0) -> Tensor:
    plan = split.exchange_plan(90, RANKS)
    tokens = plan.queries(rank)[1] - plan.queries(rank)[0]
    q, k, v = (torch.randn(1, n, tokens - short * (n == KV_HEADS), DIM) for n in (heads, KV_HEADS, KV_HEADS))
    return split.attention_split(q.requires_grad_(), k.requires_grad_(), v.requires_grad_(), plan, group=group)


def wrong_keys(rank: int, group: Any) -> None:
    """Rank 1 does not come to the exchange."""
    attended(rank, group, short=rank == 1).sum().backward()


def wrong_queries(rank: int, group: Any) -> None:
    """Rank 1 fails after it; the others wait in the backward pass."""
    attended(rank, group, heads=2 if rank == 1 else HEADS).sum().backward()


def ended(rank: int, group: Any) -> None:
    """Rank 1 is not there any more."""
    if rank == 1:
        os._exit(9)
    attended(rank, group).sum().backward()


FAILURES = {"wrong keys": wrong_keys, "wrong queries": wrong_queries, "ended": ended}

if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
