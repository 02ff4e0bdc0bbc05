"""Megatron-core: a compiled pattern as the core attention of a transformer layer.

from megatron.core.transformer.spec_utils import ModuleSpec
from patterncc.integrations.megatron import CoreAttention

layer = get_gpt_layer_local_spec(...)
layer.submodules.self_attention.submodules.core_attention = ModuleSpec(
    module=CoreAttention, params={"pattern": "s2_hybrid"}
)

core_attention   the module: tensor parallelism by head offsets, packed sequences, context parallelism
fitting          a model that is not the pattern's, or asks for what a pattern does not do, is refused
masking          masks must be causality, which the pattern takes the place of
chunks           Megatron's zig-zag chunks of a context ↔ the contiguous runs that an exchange plan splits
"""

import megatron.core
from packaging.version import Version

from patterncc.errors import UsageError

OLDEST, NEXT = "0.16.1", "0.17"  # versions [OLDEST, NEXT) of megatron-core were read and run

if not Version(OLDEST) <= Version(megatron.core.__version__) < Version(NEXT):
    raise UsageError(
        f"megatron-core {megatron.core.__version__} is installed; patterncc takes {OLDEST} and newer, below {NEXT}",
        "pip install 'patterncc[megatron]'",
    )

from patterncc.integrations.megatron.core_attention import CoreAttention  # noqa: E402

__all__ = ["CoreAttention"]
