"""Triton's interpreter, quicker: the same numbers in two thirds of the time.

While a kernel runs, the interpreter has its own functions in the place of those of `triton.language`. It puts them
there when the kernel is launched, and again at each call of a function within it: by then nothing is left to replace,
and looking for it takes longer than most calls. `patch_once` leaves the search out where they are in place.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any


def patch_once() -> None:
    """Have the interpreter replace the functions of a module once a launch."""
    from triton.runtime import interpreter

    interpreter._patch_lang = once(interpreter._patch_lang)


def once(patch_lang: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The interpreter's `_patch_lang`, but that it does nothing where all of a function's modules are patched."""
    from triton import language
    from triton.runtime import interpreter

    modules = language, language.core

    @wraps(patch_lang)
    def patch(function: Any) -> Any:
        seen = [x for x in function.__globals__.values() if inspect.ismodule(x) and x in modules]
        if not seen or any(language.core.is_builtin(module.load) for module in seen):
            return patch_lang(function)
        return interpreter._LangPatchScope()

    return patch
