"""Chunks told in blocks of their own size: the same token pairs, the same verdicts, and far fewer terms."""

from __future__ import annotations

import random

import numpy as np
import pytest

from patterncc.analysis.geometry.coarse import in_larger_blocks
from patterncc.analysis.geometry.finite import kept_tokens
from patterncc.analysis.proofs import coverage
from patterncc.analysis.proofs.reach import reach
from patterncc.analysis.verify import verify
from patterncc.ir.layout import Layout, Term
from tests.analysis.oracle import classes_of

BLOCK, TOKENS = 3, 80


def drawn(r: random.Random, causal: bool, size: int, in_tokens: bool) -> Layout:
    """A layout that can be told in blocks `size` times as large."""
    kinds = {
        "chunk": lambda: Layout(chunk=size * r.randint(1, 3)),
        "dense": lambda: Layout((Term(),)),
        "stride": lambda: Layout((Term(every=3 * size, offset=size * r.randint(0, 2), width=size),)),
        "columns": lambda: Layout((Term(j_from=size * r.randint(0, 2), j_to=size * r.randint(3, 4)),)),
        "rows": lambda: Layout((Term(i_from=size * r.randint(0, 3)),), chunk=size),
    }
    parts = [kinds[name]() for name in r.sample(sorted(kinds), r.randint(1, 2))]
    terms = tuple(term for part in parts for term in part.terms)
    window = (r.randint(1, 9), 1 if causal else r.randint(1, 6)) if in_tokens and r.random() < 0.6 else None
    sink = r.randint(0, 7) if in_tokens else 0
    bands = ((r.randint(5, 9), r.choice([None, 16])),) if in_tokens and causal and r.random() < 0.3 else ()
    return Layout(terms, window, sink, chunk=max(part.chunk for part in parts), bands=bands)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("size", [2, 3, 5])
def test_the_token_pairs_are_the_same(size: int, causal: bool) -> None:
    """And the block is larger wherever there is a chunk."""
    r = random.Random(size)
    for _ in range(60):
        layouts = [drawn(r, causal, size, r.random() < 0.5) for _ in range(3)]
        larger, block = in_larger_blocks(layouts, causal, BLOCK)
        assert block % (BLOCK * size) == 0 or not any(layout.chunk for layout in layouts)
        for one, other in zip(layouts, larger, strict=True):
            kept = kept_tokens(one, causal, BLOCK, TOKENS)
            assert np.array_equal(kept, kept_tokens(other, causal, block, TOKENS)), (one, other)


@pytest.mark.parametrize(
    "text",
    [
        "chunk 4 | d<3",
        "chunk 4 | j%6==0",
        "chunk 4 | (i-j)%4 in 0:2",
        "chunk 4 | j<3",
        "chunk 4 | random 2 seed 0",
        "d<4",
    ],
)
def test_what_cannot_be_told_in_larger_blocks_stays(text: str) -> None:
    given = (Layout.parse(text), Layout.parse("chunk 8"))[: 1 if text == "d<4" else 2]
    assert in_larger_blocks(given, True, 64) == (given, 64)


@pytest.mark.parametrize("seed", range(40))
def test_the_verdicts_are_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held, witness and number of layers, of coverage at every scope and of reach."""
    r = random.Random(seed)
    causal, size = r.random() < 0.7, r.choice([2, 3])
    layers = [[drawn(r, causal, size, seed % 2 == 1) for _ in range(2)] for _ in range(r.randint(1, 3))]
    classes = classes_of(layers, block=BLOCK, causal=causal, kv_heads=1)
    found = verify(classes, "coverage") + verify(classes, "reach")
    for module in (coverage, reach):
        monkeypatch.setattr(module, "in_larger_blocks", lambda layouts, causal, block: (tuple(layouts), block))
    true = verify(classes, "coverage") + verify(classes, "reach")
    facts = [[(v.property, v.scope, v.holds, v.witness, v.value) for v in some] for some in (found, true)]
    for one, other in zip(*facts, strict=True):
        assert one == other or other[2] is None, classes  # in large blocks more may be decided


def test_a_chunk_is_no_more_than_a_term() -> None:
    """Llama 4's: with a term for each of the 128 columns of a chunk, proofs took a hundred times as long."""
    classes = classes_of([[Layout.parse("chunk 128")], [Layout.parse("all")]], block=64, causal=True, kv_heads=1)
    larger, block = in_larger_blocks(classes.layouts, True, 64)
    assert block == 8192 and [str(layout) for layout in larger] == ["d<1", "all"]
    (layer, *_) = verify(classes, "coverage", ["layer"])
    assert layer.witness is not None and (layer.witness.query_token, layer.witness.key_token) == (8192, 0)
    assert layer.note == "no head keeps this pair: in blocks of 8192 tokens, no block is kept from distance 1 on"
