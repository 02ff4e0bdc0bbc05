"""A process on the stub of a GPU: python launched.py PACKAGES NAME FAMILY. It trains once, on whole and on packed
sequences, with PATTERNCC_KERNELS=FAMILY: Triton compiles the kernels for what launchers give, and launches them."""

from __future__ import annotations

import importlib
import os
import sys

import torch

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    os.environ["PATTERNCC_KERNELS"] = sys.argv[3]
    package = importlib.import_module(sys.argv[2])
    heads, kv_heads, dim = (package.PATTERN[key] for key in ("heads", "kv_heads", "head_dim"))
    shapes = [(2, heads, 300, dim), *[(2, kv_heads, 300, dim)] * 2]
    inputs = [torch.zeros(shape, dtype=torch.bfloat16).requires_grad_() for shape in shapes]
    torch.autograd.grad(package.attention(*inputs), inputs, torch.zeros(shapes[0], dtype=torch.bfloat16))
    packed = [x.detach()[0].transpose(0, 1).contiguous().requires_grad_() for x in inputs]
    starts = torch.tensor([0, 100, 300], dtype=torch.int32)
    out = package.attention_varlen(*packed, starts, starts, 200, 200)
    torch.autograd.grad(out, packed, torch.zeros(300, heads, dim, dtype=torch.bfloat16))
