"""Tables as HTML: a fragment that a screen reader can follow, and pages of them that need nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from quantbench.report.caption import IN_DISTRIBUTION, RELATION_MARKS
from quantbench.report.evidence import VERDICT_MARKS
from quantbench.report.footnotes import CUT, FALLBACK, OVERLAP
from quantbench.report.table import Table, TableCell

MEANINGS = {
    **{mark: str(word) for word, mark in VERDICT_MARKS.items()},
    **{mark: word for word, mark in RELATION_MARKS.items()},
    FALLBACK: "something gave way while quantizing",
    CUT: "cut",
    OVERLAP: "overlaps with the calibration text",
}
"""What a mark is read as."""

STYLE = """\
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .5rem; }
th, td { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; white-space: nowrap; }
thead { border-top: 2px solid; border-bottom: 1px solid; }
tbody { border-bottom: 1px solid; }
tbody th { font-weight: 400; }
td.own { font-weight: 700; }
abbr { text-decoration: none; }
"""


def html_table(table: Table) -> str:
    """A section: what was measured, the table with its caption and scopes, what to know, and what the numbers say."""
    words = [line.replace(IN_DISTRIBUTION, "Bold") for line in table.caption]
    notes = "".join(f"<li>{escape(line)}</li>" for line in (*words, *table.notes))
    return "\n".join(
        [
            f'<section id="{escape(table.slug)}">',
            *([f"<p>{escape(' '.join(table.opening))}</p>"] if table.opening else []),
            '<div class="wide" role="region" tabindex="0" aria-label="' + escape(table.title) + '">',
            "<table>",
            f"<caption>{escape(table.title)}</caption>",
            "<thead><tr>" + "".join(f'<th scope="col">{escape(name)}</th>' for name in table.header) + "</tr></thead>",
            *(_group(rows, table.heads) for rows in table.groups()),
            "</table>",
            "</div>",
            *([f"<ul>{notes}</ul>"] if notes else []),
            *(f"<p><strong>{escape(line)}</strong></p>" for line in table.closing),
            "</section>",
        ]
    )


def html_page(title: str, tables: Sequence[Table], legend: Sequence[str] = ()) -> str:
    """A page of tables; its style is in it, and it loads nothing. legend: lines below all of them."""
    below = "".join(f"<li>{escape(line)}</li>" for line in legend)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            '<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{STYLE}</style></head>",
            f"<body><main><h1>{escape(title)}</h1>",
            *map(html_table, tables),
            *([f"<ul>{below}</ul>"] if below else []),
            "</main></body></html>",
            "",
        ]
    )


def _group(rows: Sequence[Sequence[TableCell]], heads: int) -> str:
    lines = []
    for number, row in enumerate(rows):
        spanning = heads > 1
        first = f'<th scope="rowgroup" rowspan="{len(rows)}">{_text(row[0])}</th>' if spanning and number == 0 else ""
        named = "".join(f'<th scope="row">{_text(cell)}</th>' for cell in row[int(spanning) : heads])
        cells = "".join(map(_data, row[heads:]))
        lines.append(f"<tr>{first}{named}{cells}</tr>")
    return "<tbody>\n" + "\n".join(lines) + "\n</tbody>"


def _data(cell: TableCell) -> str:
    own = ' class="own"' if cell.in_distribution else ""
    return f"<td{own}>{_text(cell)}</td>"


def _text(cell: TableCell) -> str:
    words = [escape(cell.value), *([_marked(cell.change)] if cell.change else [])]
    return " ".join(word for word in words if word) + _marked(cell.marks)


def _marked(text: str) -> str:
    return "".join(
        f'<abbr title="{escape(MEANINGS[letter])}">{letter}</abbr>' if letter in MEANINGS else escape(letter)
        for letter in text
    )
