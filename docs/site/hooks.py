"""What `make docs` adds to the pages of docs/: the start page (README.md), the catalogue, the API, columns of results.

Pages are written so that their links also lead somewhere in a checkout; here they are made to fit the site.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

import catalogue

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "quantbench"

ROOT_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages at the top of the repository, and their names on the site."""

LICENCE = "licence.md"

COLUMNS = "<!-- columns of results.csv -->"
"""Where results.md gets the table that quantbench.report.columns holds."""

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


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links between docs/ and the top of the repository; names of files above code; the table of columns."""
    for source, page in ROOT_PAGES.items():
        markdown = re.sub(rf"\]\((?:\.\./)?{re.escape(source)}", f"]({page}", markdown)
    markdown = re.sub(r"\]\((?:\.\./)?LICENSE\)", f"]({LICENCE})", markdown)
    markdown = re.sub(r"^```(\w+) file=(\S+)$", r'```\1 title="\2"', markdown, flags=re.MULTILINE)
    return markdown.replace(COLUMNS, _columns()) if COLUMNS in markdown else markdown


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


def _columns() -> str:
    from quantbench.report.columns import RESULT_COLUMNS

    rows = [f"| `{name}` | {column.dtype} | {column.description} |" for name, column in RESULT_COLUMNS.items()]
    return "\n".join(["| column | type | meaning |", "|---|---|---|", *rows])
