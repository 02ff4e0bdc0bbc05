"""The order in which the Hopper kernel takes items of dK and dV: head after head, and all programs end alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from patterncc import reference
from tests.gluon import hopper, traffic
from tests.gluon.test_backward import NAMES, check, differentiate, sums_of
from tests.kernels.held import Held, gradients, held, placed, tensors, weights

CPU = torch.device("cpu")
HEADS = "pattern: 1\nname: emulated\nheads: {heads}\nkv_heads: {kv_heads}\nhead_dim: {dim}\nblock: 64\npromises: {{}}\n"
LONG = HEADS + "shards: [{{heads: all, local: 8, stride: 16, offset: {offset}}}]"
SMALL = HEADS.format(heads=4, kv_heads=4, dim=64) + "shards: [{heads: all, local: 1, stride: 3, offset: h}]"
H200, L2 = 132, 800  # processors, and tiles of a cache: 25 MB, half of it, since either half may have its own copy


def made(of: Held, heads: int, batch: int, by_heads: bool = True) -> tuple[Any, list[list[traffic.Slot]]]:
    """The work at 16k tokens, and what its items load."""
    items, arrays = of.part("launch.items"), of.part("launch.arrays")
    classes, columns = arrays.present(0, 0, heads), (0, 256)
    _, _, places = arrays.column_arrays(classes, columns, 256, CPU)
    about = classes, 0, places, columns, columns, 128, batch, H200, False, by_heads, None, CPU
    work = items.work.__wrapped__(*about)
    return work, traffic.slots_of(of, work, classes, 16384)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "offset", "batch"), [(16, 16, "h", 4), (16, 16, "h", 1), (32, 8, "g", 1)]
)
def test_what_heads_read_stays_in_the_cache(heads: int, kv_heads: int, offset: str, batch: int) -> None:
    """By simulation: a third less from memory than where the longest items of all heads come first, and programs have
    work until the end; likewise where slots are walked upwards."""
    of = held(LONG.format(heads=heads, kv_heads=kv_heads, dim=128, offset=offset))
    work, slots = made(of, heads, batch)
    busy, loaded = traffic.simulated(slots, work.lead, batch, H200, L2)
    other, others = made(of, heads, batch, by_heads=False)
    assert 0 < work.lead < len(slots) and other.lead == 0
    usual, more = traffic.simulated([item[::-1] for item in others], 0, batch, H200, L2)
    assert busy > max(0.97, usual - 0.01) and loaded < 0.7 * more, (busy, usual, loaded, more)


def launch(monkeypatch: pytest.MonkeyPatch, changed: tuple[str, str, str] | None = None) -> Any:
    """Two requests whose first heads lead: the gradients, those of the reference, and the work."""
    of = held(SMALL)
    launcher = of.part("launch.hopper_backward")
    monkeypatch.setattr(launcher, "processors", lambda _device: 2)
    launcher.items.work.cache_clear()
    kernels = tuple(hopper.kernel_of(launcher, name=name, changed=changed) for name in NAMES)
    inputs = tensors(of.pattern, 330, batch=2)
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])

    def attend(*given: torch.Tensor) -> Any:
        return reference.attention(of.pattern, *given)

    wide = [x.double() for x in inputs]
    sums = sums_of(*attend(*wide), dout, dlse)
    work, _ = launcher.work_of(inputs[0], launcher.Requests(2, 330, 330), (0, 0, 4))
    found = [
        differentiate(launcher, kernels, (*inputs, placed(dout)), sums, (0, 0), seed=seed, programs=programs)
        for seed, programs in ((0, 1), (1, 2))
    ]
    return found, gradients(attend, wide, dout, dlse), work


def test_requests_after_one_another_and_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    (found, again), true, work = launch(monkeypatch)
    heads = work.members[work.launches[0][0][:, 1].long(), 0]
    assert 0 < work.lead < len(heads) and (heads[: work.lead].diff() >= 0).all()
    check(found, true)
    assert all(torch.equal(x, y) for x, y in zip(found, again, strict=True))


def test_an_item_taken_of_the_other_request_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = "i_batch = gl.where(is_lead, whole, rest)"
    with pytest.raises(AssertionError):
        (found, _), true, _ = launch(monkeypatch, ("produce_items", right, "i_batch = rest * 0"))
        check(found, true)
