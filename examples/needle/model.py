"""A small Llama: RMS norm, rotary positions, attention by a compiled pattern, SwiGLU."""

from __future__ import annotations

from types import ModuleType

import torch
import torch.nn.functional as F
from settings import Setting
from torch import Tensor, nn


class Block(nn.Module):
    """One layer. `package.attention` is all that a pattern changes in it."""

    def __init__(self, setting: Setting, layer: int, package: ModuleType) -> None:
        super().__init__()
        self.heads, self.layer, self.package = setting.heads, layer, package
        width = setting.width
        self.norm_attention, self.norm_mlp = nn.RMSNorm(width), nn.RMSNorm(width)
        self.project_in = nn.Linear(width, 3 * width, bias=False)
        self.project_out = nn.Linear(width, width, bias=False)
        self.mlp_in = nn.Linear(width, 4 * width, bias=False)
        self.mlp_out = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [batch, tokens, width]; cos and sin [tokens, head_dim / 2]."""
        q, k, v = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for y in self.project_in(self.norm_attention(x)).chunk(3, -1)
        )
        out = self.package.attention(rotate(q, cos, sin), rotate(k, cos, sin), v, layer=self.layer)
        x = x + self.project_out(out.transpose(1, 2).flatten(2))
        gate, up = self.mlp_in(self.norm_mlp(x)).chunk(2, -1)
        return x + self.mlp_out(F.silu(gate) * up)


class Llama(nn.Module):
    """Logits [batch, tokens, vocabulary] of tokens [batch, tokens]."""

    def __init__(self, setting: Setting, vocabulary: int, package: ModuleType) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, setting.width)
        self.blocks = nn.ModuleList(Block(setting, layer, package) for layer in range(setting.layers))
        self.norm = nn.RMSNorm(setting.width)
        self.head = nn.Linear(setting.width, vocabulary, bias=False)
        half = setting.head_dim // 2
        self.register_buffer("speeds", 10_000.0 ** -(torch.arange(half) / half), persistent=False)
        for weight in self.parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=0.02 if len(weight) == vocabulary else 0.7 * weight.shape[1] ** -0.5)

    def use(self, package: ModuleType) -> None:
        """Change the pattern of every layer; the weights stay."""
        for block in self.blocks:
            block.package = package

    def forward(self, tokens: Tensor) -> Tensor:
        angles = torch.arange(tokens.shape[1], device=tokens.device)[:, None] * self.speeds
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, angles.cos(), angles.sin())
        return self.head(self.norm(x))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864) of x [batch, heads, tokens, head_dim]."""
    left, right = x.chunk(2, -1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], -1).to(x.dtype)
