"""The patterns of the gpu suite, and what they keep: stated here once more, by nothing that the compiler made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from benchmarks.gpu import changes
from benchmarks.patterns import kept_pairs, strided


@dataclass(frozen=True)
class Case:
    """A window of `window` tokens, and beyond it one block in `stride` (0: none), in another place for each head."""

    name: str
    heads: int = 16
    kv_heads: int = 16
    head_dim: int = 128
    block: int = 64
    stride: int = 16
    window: int = 512
    dense_heads: int = 0  # the last ones
    offset: str = "h"  # or g: heads of a KV head keep the same
    plan: str | None = None  # the form of its index map; None: arithmetic

    @property
    def module(self) -> str:
        """The name of its package."""
        return f"bench_{self.name}"

    @property
    def local(self) -> int:
        """The window in blocks."""
        return self.window // self.block

    @property
    def text(self) -> str:
        """The pattern as YAML."""
        numbers = {key: getattr(self, key) for key in ("heads", "kv_heads", "head_dim", "block", "stride", "local")}
        return strided(name=self.module, **numbers, dense_heads=self.dense_heads, offset=self.offset)

    def head_offset(self, head: Any) -> Any:
        """The first block that a query head keeps of the far context; of one head or of a tensor of heads."""
        return head if self.offset == "h" else head // (self.heads // self.kv_heads)

    def keeps_block(self, head: Any, i: Any, j: Any) -> Any:
        """Whether row i of a head keeps column j, before the causal cut; of tensors that broadcast."""
        near = i - j < self.local
        far = self.is_far(head, j)
        return near | far | (head >= self.heads - self.dense_heads)

    def is_far(self, head: Any, j: Any) -> Any:
        """Whether the stride keeps column j, likewise."""
        return (j - self.head_offset(head)) % self.stride == 0 if self.stride else (j < 0)

    def keeps(self, head: Any, t: Any, u: Any) -> Any:
        """Whether query token t of a head attends key token u, likewise."""
        return (u <= t) & self.keeps_block(head, t // self.block, u // self.block)

    def pairs(self, tokens: int) -> int:
        """Token pairs that all heads keep in one sequence."""
        return _pairs(self, tokens)

    def density(self, tokens: int) -> float:
        """Kept over causal token pairs."""
        return self.pairs(tokens) / (self.heads * tokens * (tokens + 1) / 2)


@lru_cache
def _pairs(case: Case, tokens: int) -> int:
    shape = {"block": case.block, "local": case.local, "stride": case.stride}
    sparse = range(case.heads - case.dense_heads)
    kept = sum(kept_pairs(tokens, **shape, offset=case.head_offset(head)) for head in sparse)
    return kept + case.dense_heads * tokens * (tokens + 1) // 2


ANCESTOR = Case("ancestor")  # the benchmark of S2-Attention's DKernel: batch 4, 16 heads, window of 512 tokens
CASES = {
    case.name: case
    for case in (
        ANCESTOR,
        *(replace(ANCESTOR, name=f"block{block}", block=block) for block in (16, 32, 128)),
        *(replace(ANCESTOR, name=f"dim{dim}", head_dim=dim) for dim in (64, 256)),
        replace(ANCESTOR, name="grouped", heads=32, kv_heads=8, offset="g"),
        replace(ANCESTOR, name="apart", heads=32, kv_heads=8),  # the heads of a KV head keep different columns
        replace(ANCESTOR, name="mixed", dense_heads=2),
        replace(ANCESTOR, name="thin", stride=64),
        replace(ANCESTOR, name="dense", dense_heads=16),
        replace(ANCESTOR, name="window", heads=32, kv_heads=8, stride=0, window=4096),  # Mistral's
        replace(ANCESTOR, name="table", plan="table"),
    )
}
TOY = Case("toy", heads=4, kv_heads=2, head_dim=16, block=16, stride=4, window=32, dense_heads=1)


CHANGED = {each.case: replace(CASES[each.base], name=each.case) for each in changes.CHANGED}


def by_name(name: str) -> Case:
    """The case that a cell names."""
    return TOY if name == TOY.name else CHANGED[name] if name in CHANGED else CASES[name]
