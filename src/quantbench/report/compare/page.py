"""A page of `compare`: what was measured on what, tables, and the sentences that answer; for a terminal and files."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quantbench.report.render import WIDTH, console, markdown
from quantbench.report.table import Table


@dataclass(frozen=True)
class Page:
    """What is shown.

    heading  model, scale, test texts, calibration, draws and date: a line each
    answers  sentences made from the verdicts
    rows     the numbers behind the tables, for CSV: plain values by column
    """

    title: str
    heading: Sequence[str]
    tables: Sequence[Table]
    answers: Sequence[str]
    rows: Sequence[Mapping[str, Any]] = field(default=())


def as_text(page: Page) -> str:
    """For a terminal."""
    parts = [_filled([page.title, *page.heading]), *map(console, page.tables), _filled(page.answers)]
    return "\n".join(parts)


def as_markdown(page: Page) -> str:
    """A Markdown file."""
    head = [f"# {page.title}", "", *(f"- {line}" for line in page.heading), ""]
    return "\n".join([*head, *map(markdown, page.tables), *(f"{line}\n" for line in page.answers)])


def as_csv(page: Page) -> str:
    """The numbers, one comparison a row; heading and answers are lines that begin with #."""
    buffer = io.StringIO()
    buffer.writelines(f"# {line}\n" for line in [page.title, *page.heading])
    if page.rows:
        writer = csv.DictWriter(buffer, list(page.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _plain(value) for key, value in row.items()} for row in page.rows)
    buffer.writelines(f"# {line}\n" for line in page.answers)
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    return f"{value:.10g}" if isinstance(value, float) else value


def _filled(lines: Iterable[str]) -> str:
    wrapped = (textwrap.fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False) for line in lines)
    return "\n".join(wrapped) + "\n"
