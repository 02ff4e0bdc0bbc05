"""Both families of kernels on the same numbers: the plain ones in Triton's interpreter, those for Hopper emulated. They
agree within rounding, and each repeats itself to the bit."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.gluon import fused, hopper, test_backward, test_backward_tables, test_forward
from tests.kernels.held import Held, off, quick, run, tensors, weights

pytestmark = pytest.mark.interpret
ERROR = 4e-6  # by norm, relative: float32 sums of up to 400 products, in another order
RULES = {"closed": test_backward.RULES, "table": test_backward_tables.RULES}
VARIANTS = [(form, name, block) for form, rules in RULES.items() for name in rules for block in (16, 64)]
CHOSEN = [("closed", "tokens", 64), ("closed", "wide", 16), ("table", "masked", 16), ("table", "tokens", 64)]
TOKENS = {16: 130, 64: 210}  # by block: more than a tile of 128 rows, and columns long enough to be split
Variant = tuple[str, str, int]
Found = dict[str, Tensor]


def both_made(variant: Variant) -> tuple[Any, Any]:
    """What `made` gives of the forward and of the backward, for heads of 64 numbers."""
    form, name, block = variant
    if form == "table":
        return test_backward_tables.forward(name, block), test_backward_tables.made(name, block)
    return test_forward.made(name, block, 64), test_backward.made(name, block)


@pytest.fixture(params=quick(VARIANTS, *CHOSEN), ids=lambda v: f"{v[0]}-{v[1]}-{v[2]}")
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Variant:
    """Of each a pattern whose long columns are split among the items of dK and dV."""
    _, (_, launcher, _) = both_made(request.param)
    monkeypatch.setattr(launcher, "processors", lambda _device: 20)
    monkeypatch.setattr(launcher.items, "LEAST_ROWS", 3)
    launcher.items.work.cache_clear()
    return request.param


def plain(of: Held, inputs: Any, through: Any) -> Found:
    """Output, LSE and gradients by the package's plain kernels."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return of.package.attention(q, k, v, return_lse=True)

    return run(attend, inputs, through)


def by_gluon(variant: Variant, inputs: Any, through: Any, **order: int) -> Found:
    """The same by the emulated kernels, backward between the plain ones that stand before and after them. `order`: a
    seed of who goes on when, and how many programs there are."""
    (of, launcher, kernel), (_, backward, kernels) = both_made(variant)
    out, lse = test_forward.attend(of, launcher, kernel, *inputs, **order)
    launch = importlib.import_module(f"{of.package.__name__}.launch.backward")
    options: dict[str, Any] = {"layer": 0, "scale": of.pattern.head_dim**-0.5, "head_offset": 0}
    works, work_of = list[Any](), backward.work_of

    def noted(*given: Any) -> Any:
        work, of_pattern = work_of(*given)
        works.append(work)
        return work, of_pattern

    def are_sums(_grad: Tensor) -> bool:  # launches that add to each other do so in float32
        return len(works[-1].launches) > 1

    with pytest.MonkeyPatch.context() as patch, hopper.launched(kernels, backward, are_sums, **order) as seen:
        patch.setattr(backward, "takes", lambda *_given: True)
        patch.setattr(backward, "work_of", noted)
        grads = launch.backward(*inputs, out, lse, *through, **options, q_start=0, kv_start=0)
    assert set(seen) == set(kernels)
    return {"out": out, "lse": lse} | dict(zip(("dq", "dk", "dv"), grads, strict=True))


def test_they_agree_and_repeat_themselves(variant: Variant, poisoned: None) -> None:
    (of, _, _), _ = both_made(variant)
    inputs = tensors(of.pattern, TOKENS[of.pattern.block])
    through = weights(inputs[0], inputs[0].shape[:3])
    first, second = plain(of, inputs, through), plain(of, inputs, through)
    third, fourth = (by_gluon(variant, inputs, through, seed=n, programs=2 * n + 1) for n in (0, 3))
    for name in ("out", "lse", "dq", "dk", "dv"):
        assert torch.equal(first[name], second[name]) and torch.equal(third[name], fourth[name]), name
        assert off(third[name], first[name]) < ERROR, (name, off(third[name], first[name]))
    assert torch.isinf(first["lse"]).any() == torch.isinf(reference.attention(of.pattern, *inputs)[1]).any()
    assert off(third["out"] + 1e-3, first["out"]) > ERROR  # negative control


@pytest.mark.parametrize("name", ["tokens", pytest.param("several", marks=pytest.mark.slow)])
def test_the_fused_backward_agrees(name: str, poisoned: None, cut_items: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    of, launcher, kernels = fused.made(test_backward.RULES[name])
    cut_items(launcher)
    launch, backward = of.part("launch.backward"), of.part("launch.hopper_backward")
    inputs = tensors(of.pattern, 210)
    through = weights(inputs[0], inputs[0].shape[:3])
    first = plain(of, inputs, through)
    monkeypatch.setattr(backward, "takes", lambda *_given: True)
    monkeypatch.setenv("PATTERNCC_KERNELS", "fused")
    options: dict[str, Any] = {"layer": 0, "scale": of.pattern.head_dim**-0.5, "head_offset": 0}
    found = []
    for seed in (0, 3):
        with fused.launched(kernels, launcher, seed=seed, programs=2 * seed + 1) as seen:
            given = *inputs, first["out"], first["lse"], *through
            found.append(launch.backward(*given, **options, q_start=0, kv_start=0))
        assert len(seen) == 1
    for wanted, own, again in zip((first["dq"], first["dk"], first["dv"]), *found, strict=True):
        assert torch.equal(own, again)
        assert off(own, wanted) < ERROR
