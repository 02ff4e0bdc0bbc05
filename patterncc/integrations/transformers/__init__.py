"""Hugging Face transformers: a compiled pattern as `attn_implementation`, and a KV cache that holds what it keeps.

from patterncc.integrations.transformers import PatternCache, register

model.set_attn_implementation(register("s2_hybrid"))
model.generate(**inputs, past_key_values=PatternCache(model))

registering   pattern → the name for attn_implementation
bounds        padding, offsets and static caches, as four numbers a sequence
attention     one attention layer's call → the package's functions
fitting       a model whose shapes differ from the pattern's is refused
cache         a transformers Cache whose layers are the package's KVCache
saving        a model whose config.json says its pattern
"""

import transformers
from packaging.version import Version

from patterncc.errors import UsageError

OLDEST, NEXT = "4.57", "6"  # versions [OLDEST, NEXT) of transformers were read and run

if not Version(OLDEST) <= Version(transformers.__version__) < Version(NEXT):
    raise UsageError(
        f"transformers {transformers.__version__} is installed; patterncc works with {OLDEST} and newer, below {NEXT}",
        "pip install 'patterncc[transformers]'",
    )

from patterncc.integrations.transformers.cache import PatternCache  # noqa: E402
from patterncc.integrations.transformers.registering import register  # noqa: E402
from patterncc.integrations.transformers.saving import attach, load_model  # noqa: E402

__all__ = ["PatternCache", "attach", "load_model", "register"]
