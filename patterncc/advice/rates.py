"""Measured rates of the kernels, in TFLOP/s over kept token pairs: a model of the time, not a measurement of yours.

Measured on one H200 at 4 x 16,384 tokens, 16 heads of 128, a window of 512 tokens and stride 16, in bfloat16. Other
lengths, densities and head dimensions run at other rates.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """How fast both passes were, and what was measured."""

    forward: float  # FLOP/s over kept pairs, of two products each
    backward: float  # of five
    source: str


RATES: dict[tuple[str, int], Rate] = {
    ("sm_90", 64): Rate(418e12, 268e12, "plain kernels on one NVIDIA H200, block 64, bf16, head_dim 128"),
    ("sm_90", 16): Rate(373e12, 214e12, "plain kernels on one NVIDIA H200, block 16, bf16, head_dim 128"),
}


def rate(arch: str, block: int) -> Rate | None:
    """The rate for an architecture at the nearest smaller measured block; None where nothing was measured."""
    known = sorted(size for name, size in RATES if name == arch and size <= block)
    return RATES[arch, known[-1]] if known else None
