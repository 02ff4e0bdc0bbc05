"""Triton's interpreter, quicker: the same numbers in half of the time. `quicken` leaves three things out.

While a kernel runs, the interpreter has its own functions in the place of those of `triton.language`. It puts them
there when the kernel is launched, and again at each call of a function within it: by then nothing is left to replace,
and looking for it takes longer than most calls.

For each sum and product of 32-bit integers it works out in 64 bits, with five more operations, whether that overflows,
and drops the answer unless its option `debug` is set, which is never.

For each number it makes, it builds the dictionary that says what Triton's types are in numpy.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import cache, wraps
from types import ModuleType
from typing import Any


def quicken() -> None:
    """Have the interpreter do what it does in vain no more, for the rest of this process."""
    from triton.runtime import interpreter

    interpreter._patch_lang = once(interpreter._patch_lang)
    interpreter._get_np_dtype = known(interpreter._get_np_dtype)
    interpreter.interpreter_builder.options = unasked(interpreter.interpreter_builder.options)


def once(patch_lang: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The interpreter's `_patch_lang`, but that it does nothing where all of a function's modules are patched."""
    from triton import language
    from triton.runtime import interpreter

    modules = language, language.core

    @cache
    def seen(function: Any) -> list[ModuleType]:
        return [x for x in function.__globals__.values() if inspect.ismodule(x) and x in modules]

    @wraps(patch_lang)
    def patch(function: Any) -> Any:
        found = seen(function)
        if not found or any(language.core.is_builtin(module.load) for module in found):
            return patch_lang(function)
        return interpreter._LangPatchScope()

    return patch


def unasked(options: Any) -> Any:
    """The interpreter's options, without the check for overflows where nobody is told of them."""
    return options if options.debug else replace(options, sanitize_overflow=False)


def known(find: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The interpreter's `_get_np_dtype`, which is asked once for each type of numbers."""
    types: dict[tuple[type, str], Any] = {}

    @wraps(find)
    def of(kind: Any) -> Any:
        key = type(kind), kind.scalar.name
        if key not in types:
            types[key] = find(kind)
        return types[key]

    return of
