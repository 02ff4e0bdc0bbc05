"""The witness: its two statements agree, and each part is what the language's table says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patterncc import language, reference
from patterncc.language import Pattern


def pattern_of(
    *parts: str, heads: int = 1, block: int = 16, causal: bool = True, top: str = "", folder=None
) -> Pattern:
    head = f"pattern: 1\nname: demo\nheads: {heads}\nblock: {block}\ncausal: {str(causal).lower()}\n{top}"
    return language.loads(
        head + "shards:\n  - heads: all\n" + "".join(f"    {part}\n" for part in parts), folder=folder
    )


def kept_blocks(pattern: Pattern, rows: int) -> list[list[int]]:
    """Columns that each row keeps whole: the last query of a row sees the first key of its own block."""
    block = pattern.block
    pairs = itertools.product(range(rows), range(rows))
    kept = {(i, j) for i, j in pairs if reference.attends(pattern, 0, 0, i * block + block - 1, j * block)}
    return [[j for j in range(rows) if (i, j) in kept] for i in range(rows)]


@pytest.mark.parametrize(
    ("part", "row_5"),
    [
        ("dense: true", [0, 1, 2, 3, 4, 5]),
        ("local: 2", [4, 5]),
        ("stride: 3", [0, 3]),
        ("{stride: 3, offset: 2}", [2, 5]),
        ("{stride: 4, offset: 3, width: 2}", [0, 3, 4]),
        ("strides: [{every: 3, anchor: query}]", [2, 5]),
        ("strides: [{every: 3, anchor: query, offset: 1}]", [1, 4]),
        ("strides: [{every: 1, from: 2, to: 4}]", [2, 3]),
        ("sink: 2", [0, 1]),
        ("globals: {rows: [5]}", [0, 1, 2, 3, 4, 5]),
        ("globals: {rows: [4], columns: [1, 3-4]}", [1, 3, 4]),
        ("random: {blocks: 6, seed: 1}", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_each_part_keeps_what_the_language_says(part: str, row_5: list[int]) -> None:
    parts = part[1:-1].split(", ") if part.startswith("{") else [part]
    assert kept_blocks(pattern_of(*parts), 8)[5] == row_5


def test_tokens_are_exact() -> None:
    window = pattern_of('local: "20 tokens"')
    assert [u for u in range(64) if reference.attends(window, 0, 0, 40, u)] == list(range(21, 41))
    both = pattern_of('local: "20 tokens"', causal=False)
    assert [u for u in range(80) if reference.attends(both, 0, 0, 40, u)] == list(range(21, 60))
    sink = pattern_of('sink: "5 tokens"')
    assert [u for u in range(64) if reference.attends(sink, 0, 0, 40, u)] == list(range(5))


def test_sides_count_the_own_block() -> None:
    pattern = pattern_of("local: {before: 3, after: 2}", causal=False)
    assert kept_blocks(pattern, 8)[4] == [2, 3, 4, 5]
    assert kept_blocks(pattern_of("local: 2", causal=False), 8)[4] == [3, 4, 5]
    assert kept_blocks(pattern_of("local: {after: 3}", causal=False), 8)[4] == [4, 5, 6]


def test_draws_are_these_and_do_not_depend_on_anything_else() -> None:
    """The rule is part of the language: generated packages on other machines draw the same."""
    assert [sorted(reference.drawn(7, row, 3)) for row in (0, 2, 3, 100, 10**6)] == [
        [0], [0, 1, 2], [0, 2, 3], [50, 76, 100], [332254, 692078, 898904],
    ]  # fmt: skip
    assert reference.drawn(7, -1, 3) == frozenset()


@given(st.integers(0, 2**31 - 1), st.integers(0, 10**6), st.integers(1, 40))
def test_a_row_draws_as_many_columns_as_it_can(seed: int, row: int, blocks: int) -> None:
    columns = reference.drawn(seed, row, blocks)
    assert len(columns) == min(blocks, row + 1) and max(columns) <= row and min(columns) >= 0


def test_draws_are_spread_evenly() -> None:
    counts = np.zeros(50)
    for seed in range(2000):
        counts[list(reference.drawn(seed, 49, 5))] += 1
    # 200 expected a column, standard deviation 13.4; 5 deviations.
    assert abs(counts - 200).max() < 67


def test_mask_ends_where_its_file_ends(tmp_path) -> None:
    bits = np.zeros((3, 4), dtype=bool)
    bits[2, [0, 2]] = True
    np.save(tmp_path / "m.npy", bits)
    pattern = pattern_of("mask: m.npy", folder=tmp_path)
    assert kept_blocks(pattern, 6) == [[], [], [0, 2], [], [], []]
    assert not reference.attends(pattern, 0, 0, -1, 0)  # row -1 is not the last row


PARTS = st.lists(
    st.sampled_from(
        [
            "local: 2", 'local: "21 tokens"', "stride: 3",
            "strides: [{every: 3, offset: h, anchor: query, from: 1, to: 5}]",
            "sink: 1", 'sink: "3 tokens"', "globals: {rows: [1], columns: [2]}", "random: {blocks: 2, seed: h}",
        ]
    ), min_size=1, max_size=4, unique_by=lambda part: part.split(":")[0],
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(PARTS, st.booleans(), st.integers(1, 70), st.integers(0, 70))
def test_the_two_statements_agree(parts: list[str], causal: bool, q_len: int, kv_len: int) -> None:
    pattern = pattern_of(*parts, heads=2, causal=causal)
    masks = reference.dense_mask(pattern, 0, q_len, kv_len)
    for h, row in itertools.product(range(2), {0, q_len // 2, q_len - 1}):
        t = kv_len - q_len + row
        assert masks[h, row].tolist() == [reference.attends(pattern, 0, h, t, u) for u in range(kv_len)]


def test_attention_is_softmax_over_what_is_kept() -> None:
    pattern = pattern_of("local: 1", "stride: 2", heads=4, top="kv_heads: 2\n")
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, h, 50, 24, dtype=torch.float64, generator=generator) for h in (4, 2, 2))
    out, lse = reference.attention(pattern, q, k, v)
    for b, h, t in ((0, 0, 0), (1, 3, 49), (0, 2, 33)):
        kept = [u for u in range(50) if reference.attends(pattern, 0, h, t, u)]
        scores = k[b, h // 2, kept] @ q[b, h, t] / 24**0.5
        torch.testing.assert_close(out[b, h, t], scores.softmax(0) @ v[b, h // 2, kept])
        torch.testing.assert_close(lse[b, h, t], scores.logsumexp(0))


def test_some_of_the_heads_are_those_of_the_whole() -> None:
    pattern = pattern_of("stride: 4", "offset: h", heads=4, top="kv_heads: 2\n")
    q, k, v = torch.randn(1, 4, 70, 8), torch.randn(1, 2, 70, 8), torch.randn(1, 2, 70, 8)
    out, lse = reference.attention(pattern, q, k, v)
    part, part_lse = reference.attention(pattern, q[:, 2:], k[:, 1:], v[:, 1:], head_offset=2)
    torch.testing.assert_close(part, out[:, 2:])
    torch.testing.assert_close(part_lse, lse[:, 2:])


def test_a_query_that_attends_nothing_gives_zero_and_no_nan() -> None:
    pattern = pattern_of("strides: [{every: 1, from: 1}]")
    q, k, v = (torch.randn(1, 1, 40, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    out, lse = reference.attention(pattern, q, k, v)
    assert (out[0, 0, :16] == 0).all() and (lse[0, 0, :16] == -torch.inf).all() and (lse[0, 0, 16:] > -torch.inf).all()
    (out.sum() + lse[0, 0, 16:].sum()).backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (q, k, v))
    longer, lse = reference.attention(pattern, q, k[:, :, :20], v[:, :, :20])  # queries before the first key
    assert (longer[0, 0, :36] == 0).all() and (lse[0, 0, :36] == -torch.inf).all()
