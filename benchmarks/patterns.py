"""The patterns that are measured, as YAML texts: one shape, with the numbers that a benchmark varies."""

from __future__ import annotations

from pathlib import Path


def strided(
    *,
    name: str,
    heads: int,
    stride: int,
    local: int,
    kv_heads: int | None = None,
    head_dim: int = 64,
    block: int = 64,
    dense_heads: int = 0,
    offset: str = "h",
) -> str:
    """A window and a stride whose offset moves with the head, or with the KV head, and some dense heads at the end:
    S2-Attention's shape. A stride of 0 is none."""
    sparse = heads - dense_heads
    lines = [
        "pattern: 1",
        f"name: {name}",
        f"heads: {heads}",
        f"kv_heads: {kv_heads or heads}",
        f"head_dim: {head_dim}",
        f"block: {block}",
        "shards:",
    ]
    if sparse:
        far = f", stride: {stride}, offset: {offset}" if stride else ""
        lines.append(f'  - {{heads: "0-{sparse - 1}", local: {local}{far}}}')
    if dense_heads:
        lines.append(f'  - {{heads: "{sparse}-{heads - 1}", dense: true}}')
    return "\n".join([*lines, "promises: {rows: nonempty}", ""])


def written(text: str, folder: Path) -> Path:
    """The text as a file, named for the pattern."""
    name = next(line.split(": ")[1] for line in text.splitlines() if line.startswith("name: "))
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def kept_pairs(tokens: int, *, block: int, local: int, stride: int, offset: int) -> int:
    """Token pairs that a head of `strided` keeps, counted row of blocks by row of blocks."""
    kept = 0
    for i in range(-(-tokens // block)):
        rows = min(block, tokens - i * block)
        near = min(local, i + 1) - 1
        last = i - local  # columns 0..last lie beyond the window
        far = (last - offset % stride) // stride + 1 if stride and last >= offset % stride else 0
        kept += (near + far) * rows * block + rows * (rows + 1) // 2
    return kept


def kept_share(tokens: int, *, block: int, local: int, stride: int, heads: int) -> float:
    """Kept over causal token pairs of `strided` without dense heads, whose offsets are 0 to heads - 1."""
    shape = {"block": block, "local": local, "stride": stride}
    kept = sum(kept_pairs(tokens, **shape, offset=head) for head in range(heads))
    return kept / (heads * tokens * (tokens + 1) / 2)
