"""For tests: vLLM's own CPU platform, made to honour the attention backend that is asked for, with a wheel for GPUs.

vLLM finds it by the entry point beside this file once the folder is on PYTHONPATH, in all processes of an engine. That
wheel lacks three operators that the CPU worker calls; what they do is written here in torch.
"""

from __future__ import annotations

from importlib.metadata import version
from inspect import signature
from itertools import pairwise

import torch
from torch import Tensor

_library = torch.library.Library("_C", "FRAGMENT")


def plugin() -> str:
    return "patterncc_cpu_platform.Platform"


def _define(schema: str, function: object | None) -> None:
    name = schema.split("(")[0]
    if not hasattr(torch.ops._C, name):
        _library.define(schema)
        if function is not None:
            _library.impl(name, function, "CompositeExplicitAutograd")


def _slots(query_start_loc: Tensor, positions: Tensor, block_table: Tensor, slot_mapping: Tensor, size: int) -> None:
    """The slot of each token: its page's number times the page size, and its place in the page; -1 for padding."""
    slot_mapping.fill_(-1)
    starts = query_start_loc.tolist()
    for request, (first, end) in enumerate(pairwise(starts)):
        place = positions[first:end].long()
        slot_mapping[first:end] = block_table[request, place // size].long() * size + place % size


def _launched(
    _t: int, _m: int, starts: Tensor, positions: Tensor, table: Tensor, _s: int, a: int | Tensor, b: int | Tensor,
    *_: object,
) -> None:  # fmt: skip
    """The same as vLLM 0.31 and 0.32 launch it: the size of a page before the slots, and behind them, where 0.32's own
    stand-in for a CPU takes it before."""
    slots, size = (a, b) if isinstance(a, Tensor) else (b, a)
    assert isinstance(slots, Tensor) and isinstance(size, int)
    _slots(starts, positions, table, slots, size)


_define("init_cpu_memory_env(int[] nodes) -> ()", lambda nodes: None)
_define("compute_slot_mapping_kernel_impl(Tensor q, Tensor p, Tensor b, Tensor(a!) slots, int size) -> ()", _slots)
_define("greedy_argmax(Tensor logits) -> Tensor", lambda logits: logits.argmax(-1))
if version("vllm") < "0.33":  # which looks operators up when it makes a layer, and then computes without them
    _define("silu_and_mul(Tensor(a!) out, Tensor x) -> ()", None)

try:
    from vllm.platforms.cpu import CpuPlatform
except ImportError:  # vLLM looks at the plugin before it can be imported whole
    pass
else:
    from vllm.utils import cpu_triton_utils

    if "BLOCKS_PER_KV_BLOCK" in signature(cpu_triton_utils._compute_slot_mapping_kernel_impl).parameters:  # to 0.32
        cpu_triton_utils._compute_slot_mapping_kernel_impl = _launched

    class Platform(CpuPlatform):
        @classmethod
        def get_attn_backend_cls(cls, selected_backend, attn_selector_config, num_heads=None):  # type: ignore[no-untyped-def]
            """The path of the backend that was asked for, checked as the CUDA platform checks it."""
            if selected_backend is None:
                return super().get_attn_backend_cls(selected_backend, attn_selector_config, num_heads)
            backend = selected_backend.get_class()
            reasons = backend.validate_configuration(device_capability=None, **attn_selector_config._asdict())
            if reasons:
                raise ValueError(f"{selected_backend}: {reasons}")
            return selected_backend.get_path()
