"""The Hopper kernels emulated on long sequences, and on patterns of the whole language that are drawn: slow."""

from __future__ import annotations

import importlib

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st

from patterncc.errors import PatternError
from patterncc.language import loads
from tests.gluon import test_backward_tables
from tests.gluon.test_rules import BLOCKS, SOME, package
from tests.gluon.whole import check
from tests.kernels.held import held
from tests.strategies import patterns

pytestmark = pytest.mark.slow
ERROR = 1e-5  # of sums of up to 3,001 products, and their differences in the backward
LONG = 3001  # tokens
TABLES = {name: BLOCKS[n % 4] for n, name in enumerate(test_backward_tables.RULES)}


@pytest.mark.parametrize("name", SOME)
def test_long_sequences(name: str) -> None:
    check(package(name), LONG, LONG, error=ERROR, seed=7, programs=5)


@pytest.mark.parametrize("name", TABLES)
def test_long_sequences_of_tables(name: str) -> None:
    of, _, _ = test_backward_tables.made(name, TABLES[name])
    check(of, LONG, LONG, error=ERROR, seed=7, programs=5)


@st.composite
def drawn(draw: st.DrawFn) -> str:
    """A pattern of one layer such as the kernels may be written for: of their head dim, without a cap of scores."""
    document = yaml.safe_load(draw(patterns(most_layers=1, most_heads=4)))
    document = {key: value for key, value in document.items() if key not in ("softcap", "scale", "v_head_dim", "about")}
    document |= {"name": "emulated", "head_dim": 64, "block": draw(st.sampled_from(BLOCKS)), "promises": {}}
    text = yaml.safe_dump(document)
    try:
        loads(text)
    except PatternError:  # chunks in tokens that are no whole blocks of this size
        reject()
    return text


@given(
    text=drawn(),
    plan=st.sampled_from([None, "table"]),
    lengths=st.tuples(st.integers(1, 400), st.integers(0, 300)),
    batch=st.sampled_from([1, 1, 2]),
    seed=st.integers(0, 99),
    programs=st.integers(1, 9),
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_pattern(
    text: str, plan: str | None, lengths: tuple[int, int], batch: int, seed: int, programs: int
) -> None:
    """Queries are the last of the keys; what arithmetic says may be a table. What the kernels are not written for is
    another family's."""
    of = held(text, plan)
    assume(importlib.import_module(f"{of.package.__name__}.launch.hopper").IS_WRITTEN_FOR)
    assume(importlib.import_module(f"{of.package.__name__}.launch.hopper_backward").IS_WRITTEN_FOR)
    q_len, more = lengths
    check(of, q_len, q_len + more, batch, error=ERROR, seed=seed, programs=programs)
