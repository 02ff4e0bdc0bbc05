"""The site has the repository's pages where they lie: README.md, cli.md and others outside of docs/ become pages of it,
and links between all of them, and to files such as a pattern's YAML, are turned into links of the site.

A link to a file that is not there ends the build; mkdocs itself checks pages and anchors.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "cli.md", "CONTRIBUTING.md", "benchmarks/results/*.md", "benchmarks/NOTES.md", "examples/*/*.md")
LINK = re.compile(r"(!?\[(?:[^\]\\]|\\.)*\]\()([^)#\s]+)")
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pages that lie outside of docs/, and every file that a page links to."""
    pages = {place(file): file for pattern in PAGES for file in sorted(ROOT.glob(pattern))}
    inside = {place(ROOT / "docs" / file.src_uri): ROOT / "docs" / file.src_uri for file in files.documentation_pages()}
    linked = {}
    for file in [*pages.values(), *inside.values()]:
        for target in (targets := links(file)):
            if not target.exists():
                raise PluginError(f"{file.relative_to(ROOT)}: a link to {targets[target]}, which is not there")
            if target.is_file():
                linked[place(target)] = target
    for uri, file in (linked | pages).items():
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, content=file.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with links as they lead from its place in the site."""
    uri = page.file.src_uri
    file = next(file for file in (ROOT / uri, ROOT / "docs" / uri) if file.exists())

    def turned(found: re.Match[str]) -> str:
        if "://" in found[2]:
            return found[0]
        target = place((file.parent / found[2]).resolve())
        return found[1] + posixpath.relpath(target, posixpath.dirname(uri) or ".")

    return outside(markdown, lambda text: LINK.sub(turned, text))


def links(page: Path) -> dict[Path, str]:
    """The files that a page links to, with the links' texts."""
    found: list[str] = []
    outside(page.read_text(encoding="utf-8"), lambda text: found.extend(m[2] for m in LINK.finditer(text)) or text)
    return {(page.parent / link).resolve(): link for link in found if "://" not in link}


def outside(markdown: str, change: Any) -> str:
    """The text with `change` made of what lies between its blocks of code."""
    parts, end = [], 0
    for block in FENCE.finditer(markdown):
        parts += [change(markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(markdown[end:])])


def place(file: Path) -> str:
    """Where a file of the repository stands in the site: as in the repository, but docs/ is the top."""
    return file.relative_to(ROOT).as_posix().removeprefix("docs/")
