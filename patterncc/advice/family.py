"""The S2 patterns that are considered for a model: a window, and strided shards of the rest shared out over heads.

S2-Attention (arXiv 2407.17678) gives each head another shard of the context. Three ways of sharing out are considered:
by query head (h), by KV head (g: its query heads keep the same columns, so the cache holds fewer), and by KV head
turning with the layers (g and l: only all layers together see everything).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from patterncc.advice.shapes import ModelShape

BLOCK = 64
WINDOWS = (4, 8, 16, 32, 64)  # blocks: 256 to 4,096 tokens
STRIDES = (2, 4, 8, 16, 32, 64, 128)
DENSE_LAYERS = (0, 2)  # S2-Attention keeps the first layers dense


@dataclass(frozen=True)
class Member:
    """One pattern of the family. offset: "h", "g" or "turning"; dense_heads: query heads, whole KV groups."""

    shape: ModelShape
    window: int
    stride: int
    offset: str
    dense_layers: int
    dense_heads: int

    @property
    def coverage(self) -> str:
        """The scope at which it is meant to cover everything."""
        return "model" if self.offset == "turning" else "layer"

    def to_yaml(self, name: str = "suggested") -> str:
        """The pattern file, with what it promises."""
        shape, kv = self.shape, self.shape.kv_heads
        turns = max(1, -(-self.stride // kv))
        offset = {
            "h": f"h % {self.stride}",
            "g": f"g % {self.stride}",
            "turning": f"(g + {kv} * (l % {turns})) % {self.stride}",
        }
        dense = f"  - heads: {shape.heads - self.dense_heads}-{shape.heads - 1}\n    dense: true\n"
        heads = f"0-{shape.heads - self.dense_heads - 1}" if self.dense_heads else "all"
        values = f"v_head_dim: {shape.v_head_dim}\n" if shape.v_head_dim != shape.head_dim else ""
        lines = f"dense_layers: 0-{self.dense_layers - 1}\n" if self.dense_layers else ""
        return (
            f"pattern: 1\nname: {name}\nheads: {shape.heads}\nkv_heads: {kv}\nhead_dim: {shape.head_dim}\n{values}"
            f"layers: {shape.layers}\nblock: {BLOCK}\nshards:\n  - heads: {heads}\n    local: {self.window}\n"
            f"    stride: {self.stride}\n    offset: {offset[self.offset]}\n{dense if self.dense_heads else ''}{lines}"
            f"promises: {{coverage: {self.coverage}, rows: nonempty, kv: monotone}}\n"
        )

    def estimate(self, length: int) -> tuple[float, float]:
        """KV tokens of all layers and KV heads, and density, roughly: to leave out what cannot win."""
        group = self.shape.heads // self.shape.kv_heads
        near = min(1.0, self.window * BLOCK / length)
        kept = min(1.0, near + (min(group, self.stride) if self.offset == "h" else 1) / self.stride)
        work = min(1.0, 2 * near + 1 / self.stride)
        dense = self.dense_heads / self.shape.heads
        sparse = (self.shape.layers - self.dense_layers) / self.shape.layers
        return (1 - sparse) + sparse * (dense + (1 - dense) * kept), (1 - sparse) + sparse * (
            dense + (1 - dense) * work
        )


def family(shape: ModelShape, coverage: str | None, dense_layers: int | None) -> Iterator[Member]:
    """All members of the family that have enough heads to cover at the scope that is asked for."""
    group = shape.heads // shape.kv_heads
    layers = (dense_layers,) if dense_layers is not None else tuple(n for n in DENSE_LAYERS if n < shape.layers)
    for dense in layers:
        for dense_heads in sorted({0, group} if shape.kv_heads > 1 else {0}):
            for window in WINDOWS:
                for stride in STRIDES:
                    for offset in ("g", "h", "turning"):
                        member = Member(shape, window, stride, offset, dense, dense_heads)
                        if _can_cover(member, coverage, group):
                            yield member


def _can_cover(member: Member, coverage: str | None, group: int) -> bool:
    """Dense heads cover everything by themselves; else each residue of the stride needs a head."""
    shape = member.shape
    sparse = shape.layers - member.dense_layers
    if sparse < 1:
        return False
    if member.offset == "turning":
        turns = -(-member.stride // shape.kv_heads)
        return coverage != "layer" and 1 < turns <= sparse
    if member.offset == "h" and (group == 1 or member.stride <= shape.kv_heads):
        return False  # by KV head it is the same, or as good and smaller
    return member.dense_heads > 0 or member.stride <= (shape.heads if member.offset == "h" else shape.kv_heads)
