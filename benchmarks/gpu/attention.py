"""Forward and backward of whole sequences, in alternation with FlashAttention-2 on dense causal attention."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from types import ModuleType

import torch
from torch import Tensor

from benchmarks.gpu import ceilings, steps, switch, witness
from benchmarks.gpu.cases import Case, by_name
from benchmarks.gpu.device import Device, rate
from benchmarks.gpu.witness import Attention

SHORT = 777  # tokens of the sequence that is checked in all its rows


def measure(
    device: Device, *, case: str, batch: int, tokens: int, flash: bool = True, **_: object
) -> Iterator[dict[str, object]]:
    """A row for each direction: times, TFLOP/s over kept pairs, times as fast as FlashAttention-2."""
    facts = by_name(case)
    package = importlib.import_module(facts.module)
    witness.check_mask(facts, package, tokens)
    witness.check_short(facts, device, package.attention, min(tokens, SHORT))
    for direction, inputs in both_ways(device.sequences(facts, batch, tokens)):
        with steps.risky(switch.named(facts, switch.unasked(facts, direction), direction)):
            error = witness.check_sequences(facts, device.tolerance, package.attention, *inputs)
        calls = {"ours": call_of(package.attention, inputs)}
        note: dict[str, object] = {}
        if flash:
            try:
                dense = call_of(ceilings.flash, inputs)
                dense()
                calls["flash"] = dense
            except RuntimeError as reason:  # a head dim that it does not have, or no memory
                note = {"flash_note": str(reason).splitlines()[0][:120]}
        times = device.alternate(calls)
        row: dict[str, object] = {
            "direction": direction,
            "head_dim": facts.head_dim,
            "block": facts.block,
            "density": round(facts.density(tokens), 5),
            "tuned": is_tuned(package, inputs[0], direction),
            "error": error,
            **times["ours"].row(),
            "tflops": rate(flops(facts, batch, tokens, direction), times["ours"].median),
        }
        if "flash" in times:
            ratio = times["flash"].median / times["ours"].median
            row |= {**times["flash"].row("flash_"), "over_flash": round(ratio, 3)}
        yield row | note


def is_tuned(package: ModuleType, q: Tensor, direction: str) -> bool:
    """Whether `patterncc tune` has measured on this GPU what the kernels are launched with."""
    tuned = importlib.import_module(f"{package.__name__}.launch.tuned")
    return (tuned.forward(q, q.shape[2]) if direction == "forward" else tuned.dq(q) or tuned.dkdv(q)) is not None


def both_ways(tensors: list[Tensor]) -> Iterator[tuple[str, list[Tensor]]]:
    """The same numbers twice: for a forward without gradients, then asking for them."""
    yield "forward", tensors
    yield "backward", [x.detach().requires_grad_() for x in tensors]


def flops(facts: Case, batch: int, tokens: int, direction: str) -> float:
    """Floating-point operations of the products over kept pairs: two products forward, five backward. Blocks on the
    diagonal count half, as in dense causal attention."""
    return 4 * batch * facts.pairs(tokens) * facts.head_dim * (1 if direction == "forward" else 2.5)


def call_of(attention: Attention, inputs: list[Tensor]) -> Callable[[], object]:
    """What is timed: the forward without gradients; or, where the inputs ask for them, the backward alone."""
    if not inputs[0].requires_grad:

        def forward() -> None:
            with torch.no_grad():
                attention(*inputs)

        return forward
    out = attention(*inputs)
    gradient = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, inputs, gradient, retain_graph=True)
