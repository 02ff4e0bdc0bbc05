"""Sizes of the experiment: one setting for two CPU cores, a larger one for a GPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """Everything that the four runs have in common; lengths are in tokens."""

    name: str
    heads: int
    head_dim: int
    layers: int
    block: int  # tokens in a block of the pattern
    local: int  # blocks in the window, the own one among them
    length: int  # tokens of a whole document
    start: int  # tokens of a document at the first step; documents grow until 60 % of the steps are done
    pairs: int  # needles in a document, each asked for once at its end
    batch: int  # documents a step
    steps: int
    rate: float  # the largest learning rate of AdamW
    dtype: str  # in which attention and products are computed

    @property
    def width(self) -> int:
        return self.heads * self.head_dim


SETTINGS = {
    "cpu": Setting("cpu", 4, 16, 2, 16, 2, 256, 48, 8, 32, 1200, 3e-3, "float32"),
    "gpu": Setting("gpu", 8, 64, 2, 64, 2, 4096, 512, 16, 16, 600, 1e-3, "bfloat16"),
    "toy": Setting("toy", 4, 16, 1, 16, 1, 64, 48, 2, 2, 2, 1e-3, "float32"),
}
