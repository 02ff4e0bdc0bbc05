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
) -> str:
    """A window and a stride whose offset moves with the head, and some dense heads at the end: S2-Attention's shape."""
    sparse = heads - dense_heads
    lines = [
        "pattern: 1",
        f"name: {name}",
        f"heads: {heads}",
        f"kv_heads: {kv_heads or heads}",
        f"head_dim: {head_dim}",
        f"block: {block}",
        "shards:",
        f'  - {{heads: "0-{sparse - 1}", local: {local}, stride: {stride}, offset: h}}',
    ]
    if dense_heads:
        lines.append(f'  - {{heads: "{sparse}-{heads - 1}", dense: true}}')
    return "\n".join([*lines, "promises: {rows: nonempty}", ""])


def written(text: str, folder: Path) -> Path:
    """The text as a file, named for the pattern."""
    name = next(line.split(": ")[1] for line in text.splitlines() if line.startswith("name: "))
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def kept_share(tokens: int, *, block: int, local: int, stride: int, heads: int) -> float:
    """Kept over causal token pairs of `strided` without dense heads, counted: [heads] rows of blocks."""
    rows = -(-tokens // block)
    kept = 0
    for head in range(heads):
        for i in range(rows):
            near = min(local, i + 1)
            last = i - local  # columns 0..last lie beyond the window
            far = max(0, (last - head % stride) // stride + 1) if last >= head % stride else 0
            kept += (near - 1 + far) * block * block + block * (block + 1) // 2
    return kept / (heads * tokens * (tokens + 1) / 2)
