"""From pattern files over the whole language to tables, against the reference: every pass at once, at tokens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patterncc import reference
from patterncc.ir.classes import Classes
from patterncc.ir.plan import Plan
from patterncc.ir.table import Table
from patterncc.language import Pattern, load, loads
from patterncc.passes import lower
from patterncc.passes.choose_plan import choose_plan
from patterncc.passes.lower_table import lower_table
from tests.strategies import patterns
from tests.witness import kept_blocks, kept_tokens, table_lists


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where drawn masks are written: their names say what is in them."""
    return tmp_path_factory.mktemp("masks")


def compiled(text: str, folder: Path) -> tuple[Pattern, Classes]:
    pattern = loads(text, folder=folder)
    return pattern, lower(pattern)


def heads_of_classes(classes: Classes) -> dict[int, tuple[int, int]]:
    """For each class one (layer, head); the heads that share it were told equal by what the test then checks."""
    return {k: (layer, head) for layer, row in enumerate(classes.of) for head, k in enumerate(row)}


@given(data=st.data())
def test_tables_are_the_reference(data: st.DataObject, folder: Path) -> None:
    pattern, classes = compiled(data.draw(patterns(folder=folder, sizes=True)), folder)
    length = data.draw(st.integers(1, 230))
    blocks = -(-length // pattern.block)
    if any(layout.bands for layout in classes.layouts):  # of a last block cut short they may keep nothing
        length = blocks * pattern.block
    sizes = {"causal": pattern.causal, "block": pattern.block, "rows": blocks, "columns": blocks}
    tokens = np.arange(length)
    expected: dict[int, list[list[int]]] = {}
    for layer in range(pattern.layers):
        for head in range(pattern.shape(layer).heads):
            shard = pattern.shard(layer, head)
            if id(shard) not in expected:
                expected[id(shard)] = table_lists(reference.keeps(pattern, layer, head, tokens, tokens), pattern.block)
    tables = [lower_table(layout, **sizes) for layout in classes.layouts]
    for layer in range(pattern.layers):
        for head in range(pattern.shape(layer).heads):
            wanted = expected[id(pattern.shard(layer, head))]
            assert tables[classes.of[layer][head]].tolist() == wanted
    for table in tables:
        assert Table.parse(str(table)) == table


@given(data=st.data())
def test_layouts_are_the_reference_at_tokens(data: st.DataObject, folder: Path) -> None:
    pattern, classes = compiled(data.draw(patterns(folder=folder, sizes=True)), folder)
    length = data.draw(st.integers(1, 130))
    sizes = {"causal": pattern.causal, "block": pattern.block}
    tokens = np.arange(length)
    for layer, head in heads_of_classes(classes).values():
        kept = kept_tokens(classes.layout(layer, head), length, **sizes)
        np.testing.assert_array_equal(kept, reference.keeps(pattern, layer, head, tokens, tokens))


@given(data=st.data())
def test_plans_keep_and_say_everything(data: st.DataObject, folder: Path) -> None:
    _, classes = compiled(data.draw(patterns(folder=folder, sizes=True)), folder)
    plan = choose_plan(classes)
    assert Plan.parse(str(plan)) == plan
    assert Classes.parse(str(classes)) == classes
    for layout, form in zip(classes.layouts, plan.closed, strict=True):
        if form is not None:
            rows, columns = range(14), 14
            kept = kept_blocks(layout, rows, columns)
            causal = np.tri(14, dtype=bool) if classes.causal else True
            closed = np.array([[form.keeps(i, j) for j in range(columns)] for i in rows])
            np.testing.assert_array_equal(kept & causal, closed & causal)


@pytest.mark.parametrize("causal", [True, False])
def test_rows_before_the_first_key(causal: bool) -> None:
    """Queries may be more than keys: rows below 0 keep what their terms say, and nothing drawn, masked or global."""
    parts = "local: 2, stride: 3, offset: 1, sink: 1, globals: {rows: [0, 2]}, random: {blocks: 2}"
    keys = f"pattern: 1, name: early, heads: 1, block: 16, causal: {str(causal).lower()}"
    text = f"{{{keys}, shards: [{{heads: all, {parts}}}]}}"
    pattern, classes = compiled(text, Path())
    tokens = np.arange(-40, 96)
    kept = reference.keeps(pattern, 0, 0, tokens, np.arange(96))
    rows = [kept[max(16 * i + 40, 0) : 16 * i + 56] for i in range(-3, 6)]
    blocks = [[row[:, 16 * j : 16 * j + 16].any() for j in range(6)] for row in rows]
    mine = kept_blocks(classes.layouts[0], range(-3, 6), 6)
    assert (mine & (np.tri(9, 6, -3, dtype=bool) if causal else True)).tolist() == blocks


ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "patterns").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
@pytest.mark.parametrize("lengths", [(1, 65, 1000), pytest.param((2049, 4097, 4223), marks=pytest.mark.slow)], ids=str)
def test_shipped_patterns(path: Path, lengths: tuple[int, ...]) -> None:
    pattern = load(path)
    classes = lower(pattern)
    for length in lengths:
        blocks = -(-length // pattern.block)
        tokens = np.arange(length)
        for k, (layer, head) in heads_of_classes(classes).items():
            sizes = {"causal": pattern.causal, "block": pattern.block, "rows": blocks, "columns": blocks}
            kept = reference.keeps(pattern, layer, head, tokens, tokens)
            assert lower_table(classes.layouts[k], **sizes).tolist() == table_lists(kept, pattern.block)


def test_a_pattern_without_tables_needs_no_numpy() -> None:
    """Importing it takes longer than all passes together."""
    program = """
import sys
from patterncc.language import load
from patterncc.passes import lower
from patterncc.passes.choose_plan import choose_plan
pattern = load("patterns/gemma3.yaml")
plan = choose_plan(lower(pattern))
print(plan.form, sorted({"numpy", "torch", "triton"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "closed []\n"
