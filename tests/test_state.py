"""All that modules of the compiler and of a package keep for a process, in one place, each with its reason.

A new dictionary, list or set that a module fills fails here: an argument or a small object is better, or its reason
stands in the table. What `functools.cache` keeps is the value of a function of its arguments, and is not listed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
STATE = {
    "codegen_templates/api/again.py": {
        "_recipes": "launches of calls like one before: to find them must take no time",
        "_seen": "calls that came once: only what comes again is worth a recipe",
    },
    "codegen_templates/api/flops.py": {
        "_known": "operators whose products torch's counter is told once it has been imported",
        "_registered": "those of them that it has been told: each once",
    },
    "codegen_templates/api/imports.py": {
        "_sources": "what the files held when this import began, for what it imports later",
        "_modules": "the modules of this import, which are renamed when the package is imported anew",
    },
    "codegen_templates/cpu/library.py": {
        "_lock": "threads that call first compile once",
        "_found": "the library, or why there is none: a process loads it once",
    },
    "codegen_templates/cpu/workers.py": {
        "_lock": "threads that ask first make one pool",
        "_pools": "threads live as long as the process, and are not shared with a fork",
    },
    "codegen_templates/launch/binaries.py": {"warned": "a reason not to use a binary is told once"},
    "codegen_templates/launch/graphs.py": {
        "_pinned": "what a captured graph reads must live as long as it, of which torch tells nobody",
        "_zeros": "zeros that are made together, since a launch for each takes longer than what counts in them",
    },
    "codegen_templates/launch/requests.py": {
        "_starts": "where queries of equal lengths begin: to make it takes longer than to find it"
    },
    "codegen_templates/launch/tuned.py": {
        "tried": "the configuration under trial: torch differentiates in threads of its own, which no argument reaches",
        "_read": "what files said, and how often that was forgotten: a file is read once in a process",
    },
    "codegen_templates/rules/tables.py": {"_kept": "tables for shorter lengths are parts of those for longer ones"},
    "codegen_templates/rules/row_slots.py": {"_kept": "slots for shorter lengths are parts of those for longer ones"},
    "patterncc/integrations/transformers/registering.py": {"PACKAGES": "transformers knows functions by name too"},
    "patterncc/runtime/latest.py": {"_told": "which package a name is, is told once"},
    "patterncc/runtime/load.py": {"_known": "an import by name says nothing else than the name"},
}
MUTABLE = (ast.Dict, ast.List, ast.Set)
MAKERS = {"dict", "list", "set", "Lock", "RLock", "deque", "defaultdict", "OrderedDict", "Counter", "Read", "local"}


def kept(tree: ast.Module) -> Iterator[str]:
    """Names to which a module assigns something empty that can be filled, or a lock; and those declared global."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if is_to_be_filled(node.value):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
    yield from (name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names)


def is_to_be_filled(value: ast.expr) -> bool:
    if isinstance(value, MUTABLE):
        return not (value.keys if isinstance(value, ast.Dict) else value.elts)
    if not isinstance(value, ast.Call) or value.args:
        return False
    function = value.func.value if isinstance(value.func, ast.Subscript) else value.func
    return (function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")) in MAKERS


def test_what_modules_keep_is_in_the_table() -> None:
    found: dict[str, set[str]] = {}
    for folder in ("patterncc", "codegen_templates"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            if names := set(kept(ast.parse(file.read_text(encoding="utf-8")))):
                found[file.relative_to(ROOT).as_posix()] = names
    assert found == {file: set(reasons) for file, reasons in STATE.items()}


def test_the_walk_sees_what_it_should() -> None:
    text = "a = {}\nb: list[int] = []\nc = set()\nd = threading.Lock()\nE = {1: 2}\nf = dict(a)\ng = dict[int, str]()\n"
    text += "def h():\n    global i\n    j = {}\n"
    assert set(kept(ast.parse(text))) == {"a", "b", "c", "d", "g", "i"}
