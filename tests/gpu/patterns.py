"""The patterns that the kernels are tested with: one for each kind of index map, and for each fault of DKernel."""

from __future__ import annotations

HEADS = "heads: 4\nkv_heads: 2\nblock: 16\n"
LENGTH = 101  # of the masks that are compared with the definition

# Each computes like dense attention, in every way there is.
KINDS = {
    "gpu_strided": HEADS + "head_dim: 32\nshards: [{heads: all, local: 2, stride: 4, offset: h}]",
    "gpu_dilated": HEADS + "head_dim: 32\nshards: [{heads: all, strides: [{every: 3, anchor: query, offset: h}]}]",
    "gpu_tokens": HEADS + "head_dim: 32\nshards: [{heads: all, local: 21 tokens, sink: 5 tokens}]",
    "gpu_drawn": HEADS + "head_dim: 32\nshards: [{heads: all, local: 1, random: {blocks: 2, seed: h}}]",
    "gpu_values": HEADS
    + "head_dim: 48\nv_head_dim: 32\nshards: [{heads: all, local: 21 tokens, stride: 3, offset: g}]",
    "gpu_starved": HEADS + "head_dim: 32\nshards: [{heads: all, stride: 4, offset: 2}]",
    "gpu_both_ways": HEADS + "head_dim: 32\ncausal: false\nshards: [{heads: all, local: {before: 2, after: 3}}]",
}
ODD_DIMS = (24, 48, 80, 96, 160, 192)
ODD = {
    f"gpu_dim_{n}": HEADS + f"head_dim: {n}\nshards: [{{heads: all, local: 2, stride: 3, offset: g}}]" for n in ODD_DIMS
}
LONG = {"gpu_long": "heads: 32\nkv_heads: 8\nhead_dim: 128\nblock: 64\nshards: [{heads: all, local: 2, sink: 1}]"}
WIDE = "heads: 4\nkv_heads: 2\nhead_dim: 128\nblock: 64\n"
FAMILIES = {
    "gpu_wide": WIDE + "shards: [{heads: all, local: 2, stride: 4, offset: h}]",
    "gpu_fine": WIDE.replace("64", "16") + "shards: [{heads: all, local: 3, sink: 1, stride: 5, offset: g}]",
    "gpu_exact": WIDE + "shards: [{heads: 0, dense: true}, {heads: rest, local: 100 tokens, sink: 9 tokens}]",
    "gpu_wide_both_ways": WIDE.replace("128", "64") + "causal: false\n"
    "shards: [{heads: all, local: {before: 2, after: 3}, stride: 4, offset: h}]",
    "gpu_wide_256": WIDE.replace("128", "256")
    + "shards: [{heads: all, local: 100 tokens, sink: 1, stride: 5, offset: g}]",
    "gpu_wide_80": WIDE.replace("128", "80") + "shards: [{heads: all, local: 2, stride: 4, offset: h}]",
    "gpu_wide_starved": WIDE.replace("64", "32")
    + "shards: [{heads: 0, strides: [{every: 4, offset: 2}]}, {heads: rest, stride: 7, offset: 3}]",
    "gpu_wide_bands": WIDE.replace("64", "16") + "shards: [{heads: [0, 1], chunk: 2, strides: [{every: 1, from: "
    "40 tokens, to: 90 tokens}]}, {heads: rest, local: 1, strides: [{every: 2, from: 1, to: 4}, {every: 5, from: 4}]}]",
    "gpu_wide_drawn": WIDE + "shards: [{heads: 0, local: 100 tokens, random: {blocks: 2, seed: 3}, sink: 5 tokens}, "
    "{heads: rest, local: 1, random: {blocks: 2, seed: h}}]",
    "gpu_wide_drawn_64": WIDE.replace("128", "64").replace("block: 64", "block: 32")
    + "shards: [{heads: all, local: 100 tokens, random: {blocks: 2, seed: h}, sink: 1}]",
    "gpu_wide_drawn_both_ways": WIDE.replace("64", "16") + "causal: false\n"
    "shards: [{heads: all, local: {before: 20 tokens, after: 40 tokens}, random: {blocks: 3, seed: g}}]",
}
PATTERNS = KINDS | ODD | LONG | FAMILIES
