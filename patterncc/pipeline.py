"""The compiler on one page: a pattern file in, a proved package out, and the package imported.

language.load        YAML → Pattern, or every mistake with its place
lower                resolve_heads: ranges expanded, expressions evaluated, one layout a head
                     merge_heads: equal layouts share a class
                     normalise: each layout in its shortest form, so that more of them are equal
keep_promises        what the file promises, proved for every length
prove_for_caches     whether a cache may drop what a row has dropped; proved unless it was promised
choose_plan          arithmetic where it can say the pattern, else tables
specialise_package   templates + constants + index maps + what was proved → sources
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from patterncc.codegen.package import is_name
from patterncc.errors import Diagnostic, PatternError, UsageError
from patterncc.passes import lower
from patterncc.runtime import gallery
from patterncc.runtime.cache import Cache
from patterncc.runtime.entry import Entry
from patterncc.runtime.export import export
from patterncc.runtime.given import Given, text_of
from patterncc.runtime.inputs import binaries_key, input_key
from patterncc.runtime.notes import Note, source_of

if TYPE_CHECKING:
    from patterncc.analysis.explain.mend import Mend
    from patterncc.analysis.verdict import Verdict
    from patterncc.codegen.package import GeneratedPackage
    from patterncc.ir.classes import Classes
    from patterncc.language.model import Pattern

HEAD_DIMS = range(16, 513)  # what the kernels take
DTYPES = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class Compiled:
    """A package on disk."""

    name: str
    digest: str
    path: Path  # the folder to import, named like the pattern
    cached: bool  # whether it was there already
    plan: str  # "closed" or "table"
    entry: Entry

    @property
    def binaries(self) -> dict[str, Any] | None:
        """Facts of the package's binaries: arches, dtype, triton, bytes. None when it has none."""
        if not (facts := self.entry.manifest.options.get("binaries")):
            return None
        sizes = (len(data) for name, data in self.entry.contents.items() if name.endswith((".cubin", ".hsaco")))
        return {**facts, "bytes": sum(sizes)}

    def load(self) -> ModuleType:
        """The package, imported: `compiled.load().attention(q, k, v)`."""
        from patterncc.runtime.load import load

        return load(self.entry)


class BrokenPromise(PatternError):
    """What the file promises does not hold, or could not be proved."""

    exit_code = 1

    def __init__(self, pattern: Pattern, classes: Classes, verdicts: tuple[Verdict, ...]) -> None:
        self.verdicts = verdicts
        super().__init__(_broken(pattern, classes, verdicts))


def compile(
    pattern: Given,
    *,
    output: str | os.PathLike[str] | None = None,
    plan: str | None = None,
    force: bool = False,
    binaries: Sequence[str] = (),
    dtype: str = "bf16",
) -> Compiled:
    """Compile a pattern file, a shipped pattern by name, a dict, or YAML text: into the cache, and with `output` a copy
    into that folder. A dict has the keys of a file; text has several lines, or is in braces.

    plan: "closed" or "table", None for the better one; force: build and write it even if it is there, and over a copy
    that was edited; binaries: the architectures for which compiled kernels are put into the package, for tensors of
    `dtype`.
    Raises PatternError for mistakes in the file, and BrokenPromise for what it promises and does not keep.
    """
    check_options(plan, binaries, dtype)
    text, cache = text_of(pattern), Cache.of_user()
    file = gallery.find(pattern) if text is None else None  # type: ignore[arg-type]
    key = input_key(file if text is None else text, plan, *binaries_key(binaries, dtype))
    entry = cache.seen(key) if key and not force else None
    cached = entry is not None
    if entry is None:
        from patterncc import language

        package = generate(language.loads(text or "") if file is None else language.load(file), plan)
        if binaries:
            from patterncc.codegen.binaries import ship_binaries

            package = ship_binaries(package, tuple(dict.fromkeys(binaries)), dtype)
        cached = not force and cache.find(package.digest) is not None
        entry = cache.store(package, anew=force)
    cache.remember(entry, key, Note(entry.digest, plan, source_of(file)))
    path = entry.path if output is None else export(entry, Path(output), force=force)
    return Compiled(entry.name, entry.digest, path, cached, str(entry.manifest.options["form"]), entry)


def check_options(plan: str | None, binaries: Sequence[str], dtype: str) -> None:
    """Raise UsageError for an unknown form, dtype or architecture, and for one architecture that is not in a list."""
    known: dict[str, tuple[object, Sequence[str]]] = {"dtype": (dtype, DTYPES)}
    if plan is not None:
        from patterncc.ir.plan import FORMS

        known["plan"] = plan, FORMS
    for name, (given, words) in known.items():
        if given not in words:
            raise UsageError(f"{name} is {given!r}; it takes {', '.join(words)}")
    if isinstance(binaries, str):
        raise UsageError(f"binaries is {binaries!r}; it takes architectures", f"write [{binaries!r}]")
    if binaries:
        from patterncc.codegen.targets import ARCHES, meant

        for arch in binaries:
            if arch not in ARCHES:
                raise UsageError(f"binaries names {arch!r}; it takes {', '.join(ARCHES)}", meant(str(arch)))


def generate(pattern: Pattern, plan: str | None = None) -> GeneratedPackage:
    """From a checked pattern to the files of its package, its promises proved."""
    from patterncc.analysis.verify import prove_for_caches
    from patterncc.codegen.module import specialise_package
    from patterncc.passes.choose_plan import choose_plan

    classes = lower(pattern)
    check_head_dim(pattern)
    promised = keep_promises(pattern, classes)
    kv = prove_for_caches(classes, promised)
    chosen = choose_plan(classes, plan)
    return specialise_package(chosen, pattern.about, pattern.promises, pattern.source, kv)


def keep_promises(pattern: Pattern, classes: Classes) -> tuple[Verdict, ...]:
    """The verdicts on what the file promises, all of which hold; else BrokenPromise with the witnesses."""
    from patterncc.analysis.verify import failed, verify

    verdicts = verify(classes, "promises", promises=pattern.promises)
    if broken := failed(verdicts, "promises", pattern.promises):
        raise BrokenPromise(pattern, classes, broken)
    return verdicts


def check_head_dim(pattern: Pattern) -> None:
    """PatternError for widths, of any layer, that kernels do not take."""
    from patterncc.language.shape import shape_of

    limits = f"from {HEAD_DIMS[0]} to {HEAD_DIMS[-1]}"
    wrong: dict[str, str] = {}
    for number, layout in [(None, None), *enumerate(pattern.layouts)]:
        shape = shape_of(pattern, layout)
        if shape not in pattern.shapes:
            continue
        stated = f"layouts.{number}."
        widths = {"head_dim": shape.head_dim}
        widths |= {"v_head_dim": shape.v_head_dim} if shape.v_head_dim != shape.head_dim else {}
        at = {key: stated + key if pattern.place(stated + key) else key for key in widths}
        for key, n in widths.items():
            if n not in HEAD_DIMS:
                wrong.setdefault(at[key], f"{key} is {n}; kernels take {limits}")
    if wrong:
        raise PatternError([_at(pattern, key, message, None) for key, message in wrong.items()])


def load(pattern: Given, *, plan: str | None = None) -> ModuleType:
    """The package of a pattern file, of a shipped pattern, of what was last compiled under a name, or of a dict or YAML
    text as `compile` takes them; imported."""
    name = pattern if isinstance(pattern, str) and is_name(pattern) and not gallery.is_path(pattern) else ""
    module = load_compiled(name) if name and name not in gallery.shipped() else None
    if module is not None:
        return module
    return compile(pattern, plan=plan).load()


def load_compiled(name: str) -> ModuleType | None:
    """What was last compiled under this name (see runtime/latest.py), else the shipped pattern of this name, imported;
    None without either."""
    from patterncc.runtime.latest import latest
    from patterncc.runtime.load import load as load_entry

    def build(given: Given, plan: str | None) -> Entry:
        return compile(given, plan=plan).entry

    entry = latest(name, Cache.of_user(), build) if is_name(name) else None
    if entry is not None:
        return load_entry(entry)
    return compile(name).load() if name in gallery.shipped() else None


def _broken(pattern: Pattern, classes: Classes, verdicts: tuple[Verdict, ...]) -> list[Diagnostic]:
    """A mistake for each broken promise, where it is promised, else where the shards begin; layers that break it for
    one reason share one."""
    from patterncc.analysis.explain.explain import explanations
    from patterncc.language.ranges import ranges

    layers: dict[tuple[str, str], list[int]] = {}
    of: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        what = "does not hold" if verdict.holds is False else "could not be proved"
        by_default = " (by every file without `promises`)" if pattern.promises is None else ""
        words = f"{verdict.property} is promised{by_default} and {what} ({verdict.scope}, "
        reason = words, verdict.found or verdict.proof
        layers.setdefault(reason, []).extend(verdict.layers)
        of.setdefault(reason, []).append(verdict)
    found: list[Diagnostic] = []
    mended: dict[tuple[str, str], tuple[Mend, ...]] = {}
    said = next((key for key in ("promises", "shards", "layouts") if pattern.place(key)), "promises")
    for (words, witness), where in layers.items():
        message = f"{words}layer{'s' if len(where) > 1 else ''} {ranges(sorted(where))}): {witness}"
        help = "; ".join(explanations(classes, of[words, witness], pattern, mended=mended, name_layers=False))
        found.append(_at(pattern, said, message, help or None))
    return found


def _at(pattern: Pattern, key: str, message: str, hint: str | None) -> Diagnostic:
    """A mistake at a key of the file's top level; at the file where the key is left out."""
    if (found := pattern.place(key)) is not None:
        span, line = found
        return Diagnostic(message, pattern.file, span, hint, line)
    return Diagnostic(message, pattern.file, help=hint)
