"""A compiler for sparse attention patterns: one YAML file in, a proved and importable kernel package out.

    patterncc.compile("pattern.yaml")      compile it, prove its promises; the package's path and digest
    patterncc.load("pattern.yaml")         the same, imported: its `attention(q, k, v)` runs
    from patterncc.kernels import demo     what was compiled last under this name on this machine

Both functions take a dict, or YAML text, as well as a file.

Importing this module imports nothing else: torch, pydantic and the compiler come with the first call.
"""

from __future__ import annotations

from patterncc.version import __version__

TYPE_CHECKING = False  # typing's own costs a third of a start
if TYPE_CHECKING:
    from patterncc.errors import PatternError
    from patterncc.pipeline import compile, load

__all__ = ["PatternError", "__version__", "compile", "load"]


def __getattr__(name: str) -> object:
    if name == "PatternError":
        from patterncc.errors import PatternError

        return PatternError
    if name in ("compile", "load"):
        from patterncc import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
