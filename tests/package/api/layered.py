"""A pattern whose layers differ in heads and widths, and what each of them says in a file of its own."""

from __future__ import annotations

from types import ModuleType

from tests.package.made import compiled

HEAD = "pattern: 1\nname: small\nheads: 4\nkv_heads: 2\nhead_dim: 16\nblock: 16\npromises: {}\n"
WINDOW = "shards: [{heads: all, local: 21 tokens, stride: 3, offset: g}]"


# Layer 0: 4 heads on 2, as the pattern says. Layers 1, 3: 6 heads on 3. Layer 2: wider, values less so, one KV head.
TEXT = (
    HEAD
    + "layers: 4\n"
    + "shards: [{heads: 0, dense: true}, {heads: rest, local: 2, offset: h, stride: 5}]\n"
    + f"layouts:\n- {{layers: [1, 3], heads: 6, kv_heads: 3, {WINDOW}}}\n"
    + "- {layers: 2, kv_heads: 1, head_dim: 32, v_head_dim: 24, shards: [{heads: all, local: 1, sink: 5 tokens}]}\n"
)
ALONE = [  # what each layer says, in a file of its own
    HEAD + "shards: [{heads: 0, dense: true}, {heads: rest, local: 2, offset: h, stride: 5}]\n",
    HEAD.replace("heads: 4\nkv_heads: 2", "heads: 6\nkv_heads: 3") + WINDOW,
    HEAD.replace("kv_heads: 2\nhead_dim: 16", "kv_heads: 1\nhead_dim: 32\nv_head_dim: 24")
    + "shards: [{heads: all, local: 1, sink: 5 tokens}]",
    HEAD.replace("heads: 4\nkv_heads: 2", "heads: 6\nkv_heads: 3") + WINDOW,
]


def both(layer: int) -> tuple[ModuleType, ModuleType]:
    """The package of all layers, and that of the layer alone."""
    return compiled(TEXT)[1], compiled(ALONE[layer])[1]
