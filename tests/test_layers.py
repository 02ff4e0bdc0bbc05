"""The import order is the folder list: each part imports what stands to its left, and torch only where tensors are."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "patterncc"
TEMPLATES = PACKAGE.parent / "codegen_templates"

BELOW = ("version", "errors", "files", "lazy", "language", "ir", "debug", "passes", "analysis", "pictures")
ORDER = (*BELOW, "codegen", "runtime", "pipeline", "formats", "advice", "integrations", "cli")
MAY_IMPORT = {part: set(ORDER[: place + 1]) for place, part in enumerate(ORDER)} | {
    "reference": {"errors", "language", "reference"},  # the independent witness: no pass, no IR
    "integrations": {"errors", "lazy", "runtime", "pipeline", "integrations"},  # one module an engine
    "formats": {"errors", "files", "language", "reference", "formats"},  # what others say, in and out
    "kernels": {"runtime", "pipeline", "kernels"},  # `from patterncc.kernels import NAME`
    "__init__": set(ORDER),  # names a user imports
    "__main__": set(ORDER),
}
MAY_IMPORT["runtime"].add("reference")  # `verify kernels` holds a package against the definition
WITHOUT_TENSORS = (
    "errors",
    "language",
    "ir",
    "passes",
    "analysis",
    "pictures",
)  # not in a function either
TENSORS = {"torch", "triton"}


def parts() -> Iterator[tuple[str, Path]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        yield file.relative_to(PACKAGE).parts[0].removesuffix(".py"), file


def imports(file: Path, *, top_level: bool = False, types: bool = False, root: Path = PACKAGE) -> Iterator[str]:
    """The absolute names of the modules that a file of a package imports: at module level only or anywhere, with those
    for types alone or without."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    skipped = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda) if top_level else ()
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if (
            not types
            and isinstance(node, ast.If)
            and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        ):
            stack += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{origin(file, node, root)}.{alias.name}" for alias in node.names)
        if not isinstance(node, skipped):
            stack += ast.iter_child_nodes(node)


def origin(file: Path, node: ast.ImportFrom, root: Path = PACKAGE) -> str:
    if not node.level:
        return node.module or ""
    folder = file.parents[node.level - 1]
    return ".".join((*folder.relative_to(root.parent).parts, *filter(None, [node.module])))


def test_every_part_is_in_the_table() -> None:
    assert {part for part, _ in parts()} <= set(MAY_IMPORT), "a new part: say in the table where it stands"


@pytest.mark.parametrize("part", sorted({part for part, _ in parts()}))
def test_parts_import_what_stands_to_their_left(part: str) -> None:
    for name, file in parts():
        if name != part:
            continue
        for module in imports(file):
            if module.startswith("patterncc."):
                target = module.split(".")[1]
                known = target in MAY_IMPORT  # `from patterncc import __version__` names no part
                assert not known or target in MAY_IMPORT[part], f"{file.relative_to(PACKAGE)} imports {module}"
            assert module.split(".")[0] != "codegen_templates", f"{file}: templates are read as text, not imported"
            if part in WITHOUT_TENSORS:
                assert module.split(".")[0] not in TENSORS, f"{file.relative_to(PACKAGE)} imports {module}"


def test_the_walk_sees_what_it_should(tmp_path: Path) -> None:
    """Negative control: each form of import is found, and one in a function is not at top level."""
    folder = tmp_path / "patterncc" / "ir"
    folder.mkdir(parents=True)
    file = PACKAGE / "ir" / "no_such_file.py"
    node = ast.parse("from ..passes import x").body[0]
    assert isinstance(node, ast.ImportFrom)
    assert origin(file, node) == "patterncc.passes"
    text = "import a.b\nfrom c import d\ndef f():\n    import torch\nif TYPE_CHECKING:\n    import e\n"
    (folder / "x.py").write_text(text)
    assert sorted(imports(folder / "x.py")) == ["a.b", "c.d", "torch"]
    assert sorted(imports(folder / "x.py", top_level=True)) == ["a.b", "c.d"]


def circle(root: Path) -> list[str]:
    """Modules of a package of which each imports the next and the last the first, in functions and for types counted
    too; empty where none do."""
    files = {}
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    graph: dict[str, set[str]] = {}
    for name, file in files.items():
        found = set(imports(file, types=True, root=root))
        modules = {module if module in files else module.rpartition(".")[0] for module in found}
        graph[name] = (modules & set(files)) - {name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1][1:]))  # graphlib names them from the last that is needed
    return []


@pytest.mark.parametrize("root", [PACKAGE, TEMPLATES, PACKAGE.parent / "benchmarks"], ids=lambda root: root.name)
def test_no_modules_import_each_other(root: Path) -> None:
    assert not (found := circle(root)), f"move what both need to a lower file: {' -> '.join(found)}"


@pytest.mark.parametrize("how", ["import {}\n", "def f():\n    import {}\n", "if TYPE_CHECKING:\n    import {}\n"])
def test_a_circle_is_seen(tmp_path: Path, how: str) -> None:
    """Negative control: three files, the last of which imports the first."""
    root = tmp_path / "house"
    (root / "inner").mkdir(parents=True)
    (root / "__init__.py").touch()
    (root / "inner" / "__init__.py").touch()
    (root / "a.py").write_text("from house import b\n")
    (root / "b.py").write_text("from .inner.c import name\n")
    (root / "inner" / "c.py").write_text("import house.d\n")
    assert circle(root) == []
    (root / "inner" / "c.py").write_text(how.format("house.a"))
    assert sorted(circle(root)) == ["house.a", "house.b", "house.inner.c"]


def test_templates_import_torch_triton_and_each_other_only() -> None:
    allowed = {"torch", "triton", "codegen_templates"} | sys.stdlib_module_names
    for file in sorted(TEMPLATES.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                inside = len(file.relative_to(TEMPLATES).parts)
                assert node.level <= inside, f"{file.name}: a generated package knows nothing above its own folder"
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert {name.split(".")[0] for name in names} <= allowed, f"{file.name}: {ast.unparse(node)}"


def test_the_command_line_starts_light() -> None:
    heavy = ("torch", "triton", "numpy", "pydantic", "yaml")
    script = f"import sys, patterncc.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
