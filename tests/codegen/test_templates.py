"""The discipline of the templates: what lets a marked module be specialised as text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from patterncc.codegen.constants import constants
from patterncc.codegen.specialise import set_constants
from patterncc.codegen.template import Template, templates
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout
from patterncc.passes.choose_plan import choose_plan

FILES = sorted(templates())
PLAN = choose_plan(Classes("demo", 16, True, 32, 1, 1, (Layout.parse("d<2"),), ((0,),)))
KNOWN = constants(PLAN, "About.", None, ())


@pytest.mark.parametrize("file", FILES)
def test_identity(file: str) -> None:
    template = templates()[file]
    assert set_constants(template.text, template.values) == template.text


@pytest.mark.parametrize("file", FILES)
def test_at_most_one_block_of_each_kind(file: str) -> None:
    text = templates()[file].text
    for begin, end in (
        ("# --- constants:", "# --- end constants ---"),
        ("# --- index map:", "# --- end index map ---"),
    ):
        assert (text.count(begin), text.count(end)) in [(0, 0), (1, 1)]


def test_every_constant_is_known_and_every_known_one_is_used() -> None:
    used = {name for template in templates().values() for name in template.values}
    assert used == set(KNOWN)


@pytest.mark.parametrize("file", FILES)
def test_constants_have_the_kind_of_value_that_they_will_be_given(file: str) -> None:
    for name, value in templates()[file].values.items():
        assert type(value) is type(KNOWN[name]), name


@pytest.mark.parametrize("file", FILES)
def test_every_constant_is_read(file: str) -> None:
    template = templates()[file]
    read = {node.id for node in names(ast.parse(template.text)) if isinstance(node.ctx, ast.Load)}
    module = file.removesuffix(".py").rpartition("/")[2]
    imported = re.compile(rf"^ *from \.\S*\b{module} import", re.MULTILINE)
    elsewhere = "\n".join(t.text for name, t in templates().items() if imported.search(t.text) and name != file)
    for name in template.values:
        assert name in read or re.search(rf"\b{name}\b", elsewhere), f"{file}: {name}"


def test_no_module_hides_a_function_of_the_package() -> None:
    """Importing a submodule sets it as an attribute: `combine.py` made `package.combine` a module after a launch."""
    [exported] = [
        ast.literal_eval(node.value)
        for node in ast.parse(templates()["package.py"].text).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    assert "attention" in exported and not {file.split("/")[0].removesuffix(".py") for file in FILES} & set(exported)


@pytest.mark.parametrize("file", FILES)
def test_kernels_are_named_so_that_a_profiler_line_says_which_pattern(file: str) -> None:
    template: Template = templates()[file]
    launched = set(re.findall(r"\b(\w+)\[[^\]\n]*\]\(", template.text)) & set(_jitted())
    assert launched <= set(_kernels()), "a function that is launched is called attn_*"


def test_the_discipline_would_be_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a constant that nobody reads is seen."""
    text = "# --- constants: set ---\nIS_CAUSAL = True\n# --- end constants ---\nx = 1\n"
    monkeypatch.setitem(templates(), "bad.py", Template(text))
    with pytest.raises(AssertionError, match=r"bad.py: IS_CAUSAL"):
        test_every_constant_is_read("bad.py")


def names(tree: ast.AST) -> Iterator[ast.Name]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Name))


def _kernels() -> list[str]:
    return [kernel for template in templates().values() for kernel in template.kernels]


def _jitted() -> list[str]:
    text = "\n".join(template.text for template in templates().values())
    return re.findall(r"^@triton\.jit.*\n(?:@.*\n)*def (\w+)\(", text, flags=re.MULTILINE)
