"""A layer whose attention is a pattern, and the operators of a package."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from torch import Tensor, nn

from tests.package.made import compiled


def operators(package: ModuleType) -> object:
    """The package's own namespace in torch.ops: each import of a name has another one."""
    namespace = importlib.import_module(f"{package.__name__}.api.ops")._forward._qualname.split("::")[0]
    return getattr(torch.ops, namespace)


class Layer(nn.Module):
    """Projections around attention, as a model has them."""

    def __init__(self, package: ModuleType, heads: int, kv_heads: int, dim: int) -> None:
        super().__init__()
        self.package, self.heads, self.dim = package, heads, dim
        self.q, self.k, self.v = (nn.Linear(32, n * dim) for n in (heads, kv_heads, kv_heads))
        self.out = nn.Linear(heads * dim, 32)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, self.dim)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return x + self.out(self.package.attention(q, k, v).transpose(1, 2).flatten(2))


def layer(name: str = "strided") -> Layer:
    pattern, package = compiled(name)
    torch.manual_seed(1)
    return Layer(package, pattern.heads, pattern.kv_heads, pattern.head_dim)
