"""The Hopper kernels emulated on long sequences, and on patterns of the whole language that are drawn: slow."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st
from torch import Tensor

from patterncc import reference
from patterncc.errors import PatternError
from patterncc.language import loads
from tests.gluon import hopper, test_backward, test_forward
from tests.kernels.held import Held, gradients, held, off, tensors, weights
from tests.strategies import patterns

pytestmark = pytest.mark.slow
ERROR = 1e-5  # by norm, relative: float32 sums of up to 3,001 products, and their differences in the backward
LONG = 3001  # tokens
BLOCKS = (16, 32, 64, 128)
SOME = {name: BLOCKS[n % 4] for n, name in enumerate(test_backward.RULES)}  # each rule, and each block several times


def emulated(of: Held, inputs: Any, through: Any, **order: int) -> dict[str, Tensor]:
    """Output, LSE and gradients by the emulated kernels: dq, dk and dv come from the reference's output and LSE."""
    root = of.package.__name__
    forward, backward = (importlib.import_module(f"{root}.launch.{file}") for file in ("hopper", "hopper_backward"))
    q, k, _ = inputs
    start = k.shape[2] - q.shape[2]
    out, lse = test_forward.attend(of, forward, hopper.kernel_of(forward), *inputs, **order)
    kernels = tuple(hopper.kernel_of(backward, name=name) for name in test_backward.NAMES)
    sums = test_backward.sums_of(*reference.attention(of.pattern, *inputs), *through)
    grads = test_backward.differentiate(backward, kernels, (*inputs, through[0]), sums, (start, 0), **order)
    return {"out": out, "lse": lse} | dict(zip(("dq", "dk", "dv"), grads, strict=True))


def check(of: Held, q_len: int, kv_len: int, batch: int = 1, **order: int) -> None:
    """The emulated kernels against the reference in fp64."""
    inputs = tensors(of.pattern, q_len, kv_len, batch=batch)
    through = weights(inputs[0], inputs[0].shape[:3])
    found = emulated(of, inputs, through, **order)

    def attend(*inputs: Tensor) -> Any:
        return reference.attention(of.pattern, *inputs)

    true = dict(zip(("out", "lse"), attend(*inputs), strict=True))
    true |= dict(zip(("dq", "dk", "dv"), gradients(attend, [x.double() for x in inputs], *through), strict=True))
    errors = {name: off(found[name], true[name]) for name in true}
    assert max(errors.values()) < ERROR, errors


@pytest.mark.parametrize("name", SOME)
def test_long_sequences(name: str) -> None:
    of, _, _ = (
        test_forward.made(name, SOME[name]) if name in test_forward.RULES else test_backward.made(name, SOME[name])
    )
    check(of, LONG, LONG, seed=7, programs=5)


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
    lengths=st.tuples(st.integers(1, 400), st.integers(0, 300)),
    batch=st.sampled_from([1, 1, 2]),
    seed=st.integers(0, 99),
    programs=st.integers(1, 9),
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_pattern(text: str, lengths: tuple[int, int], batch: int, seed: int, programs: int) -> None:
    """Queries are the last of the keys. What the kernels are not written for is another family's."""
    of = held(text)
    assume(importlib.import_module(f"{of.package.__name__}.launch.hopper").IS_WRITTEN_FOR)
    assume(getattr(importlib.import_module(f"{of.package.__name__}.launch.hopper_backward"), "IS_WRITTEN_FOR", True))
    q_len, more = lengths
    check(of, q_len, q_len + more, batch, seed=seed, programs=programs)
