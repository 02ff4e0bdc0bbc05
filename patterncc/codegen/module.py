"""From a plan to the files of a package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from patterncc.analysis.verdict import Verdict
from patterncc.codegen.by_layer import specialise_by_layer
from patterncc.codegen.one_shape import specialise_shape
from patterncc.codegen.package import GeneratedPackage
from patterncc.ir.plan import Plan


def specialise_package(
    plan: Plan, about: str, promises: Mapping[str, Any] | None, source: str, kv: Iterable[Verdict]
) -> GeneratedPackage:
    """The package of a plan; where layers differ in their shapes, one package above those of each shape.

    `source` is the YAML text, which only the manifest holds; `kv` are the verdicts that `prove_for_caches` gives.
    """
    if plan.classes.shapes:
        return specialise_by_layer(plan, about, promises, source, tuple(kv))
    return specialise_shape(plan, about, promises, source, kv)
