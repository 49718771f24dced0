"""What `make docs` adds to the pages of docs/: the start page (README.md), the catalogue, the API, columns of results.

Pages are written so that their links also lead somewhere in a checkout; here they are made to fit the site.
"""

from __future__ import annotations

import ast
import csv
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

import catalogue

log = get_plugin_logger("quantbench")

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "quantbench"

ROOT_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages at the top of the repository, and their names on the site."""

LICENCE = "licence.md"

RESULTS = "<!-- columns of results.csv -->"
COMPARISONS = "<!-- columns of comparisons.csv -->"
"""Where results.md gets the table that quantbench.report.columns holds."""

RENAMES = "<!-- renames -->"
"""Where migration.md gets the table of docs/renames.csv."""

_FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"(?<!\[)`(quantbench(?:\.\w+)+)`")

OPTIONS_NAV, API_NAV = "OPTIONS", "API"
"""Entries of the navigation in mkdocs.yml that stand for generated pages."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages into the navigation."""
    options = [f"options/{name}" for name in catalogue.pages(ROOT / "conf")]
    config.nav = _expanded(config.nav, {OPTIONS_NAV: options, API_NAV: [f"api/{name}.md" for name in _packages()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for path, content in _generated():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Links between docs/ and the top of the repository, and to modules; names of files above code; the two tables."""
    for source, target in ROOT_PAGES.items():
        markdown = re.sub(rf"\]\((?:\.\./)?{re.escape(source)}", f"]({target}", markdown)
    markdown = re.sub(r"\]\((?:\.\./)?LICENSE\)", f"]({LICENCE})", markdown)
    markdown = re.sub(r"^```(\w+) file=(\S+)$", r'```\1 title="\2"', markdown, flags=re.MULTILINE)
    if page.file.src_uri not in (*ROOT_PAGES.values(), "migration.md"):  # those speak of names of before
        parts = _FENCED.split(markdown)
        markdown = "".join(part if part.startswith("```") else _NAME.sub(_reference, part) for part in parts)
    for mark, table in ((RESULTS, _results), (COMPARISONS, _comparisons), (RENAMES, _renames)):
        markdown = markdown.replace(mark, table()) if mark in markdown else markdown
    return markdown


def _reference(match: re.Match[str]) -> str:
    """A link to what a dotted name in code stands for, where the modules' pages show it."""
    parts = match[1].split(".")
    for length in range(len(parts), 0, -1):
        module = ROOT.joinpath("src", *parts[:length])
        file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
        if file.is_file():
            return _shown(match, file, parts[length:])
    return _nothing(match)


def _shown(match: re.Match[str], file: Path, attributes: Sequence[str]) -> str:
    node: Any = ast.parse(file.read_text(encoding="utf-8"))
    for name in attributes:
        found = [one for one in node.body if getattr(one, "name", None) == name]
        if not found:
            return _nothing(match) if len(attributes) == 1 and not _assigns(node, name) else match[0]
        node = found[0]
    return f"[`{match[1]}`][{match[1]}]" if ast.get_docstring(node) else match[0]


def _assigns(node: ast.AST, name: str) -> bool:
    return any(isinstance(one, ast.Name) and one.id == name for one in ast.walk(node))


def _nothing(match: re.Match[str]) -> str:
    log.warning("%s names nothing in src/", match[0])
    return match[0]


def _generated() -> Iterator[tuple[str, str]]:
    for source, page in ROOT_PAGES.items():
        yield page, (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
    yield LICENCE, f"# Licence\n\n```text\n{(ROOT / 'LICENSE').read_text(encoding='utf-8')}```\n"
    for name, content in catalogue.pages(ROOT / "conf").items():
        yield f"options/{name}", content
    for name in _packages():
        yield f"api/{name}.md", f"# quantbench.{name}\n\n::: quantbench.{name}\n"


def _packages() -> list[str]:
    """The packages with parts that others build upon, by name."""
    return sorted(folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file())


def _expanded(nav: Any, generated: dict[str, list[str]]) -> Any:
    """The navigation with the names of generated pages in place of the entries that stand for them."""
    if isinstance(nav, dict):
        return {name: _expanded(one, generated) for name, one in nav.items()}
    if not isinstance(nav, list):
        return nav
    parts = [
        generated[one] if isinstance(one, str) and one in generated else [_expanded(one, generated)] for one in nav
    ]
    return [one for part in parts for one in part]


def _renames() -> str:
    with (ROOT / "docs" / "renames.csv").open(encoding="utf-8", newline="") as file:
        rows = [[cell.replace("|", "\\|") for cell in row] for row in csv.reader(file)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * 3, *rows[1:]])


def _results() -> str:
    from quantbench.report.columns import RESULT_COLUMNS

    return _columns(RESULT_COLUMNS)


def _comparisons() -> str:
    from quantbench.report.comparison_columns import COMPARISON_COLUMNS

    return _columns(COMPARISON_COLUMNS)


def _columns(columns: dict[str, Any]) -> str:
    rows = [f"| `{name}` | {column.dtype} | {column.description} |" for name, column in columns.items()]
    return "\n".join(["| column | type | meaning |", "|---|---|---|", *rows])
