"""Tables as LaTeX: booktabs, for a paper to input, and a document of all of them that compiles as it is."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import pairwise

from quantbench.report.caption import IN_DISTRIBUTION
from quantbench.report.layout import blocks, joined
from quantbench.report.table import Table, TableCell

ROOM = 130
"""Letters that a table may be wide: more goes into a further table."""

FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"
"""Scales what is wider than the line down to it, and leaves the rest as it is."""

MOST_ROWS = 45
"""Rows of a page."""

PACKAGES = ("booktabs", "graphicx", "amssymb", "pifont")

SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",
    "]": "{]}",
    "±": r"\ensuremath{\pm}",
    "−": r"\ensuremath{-}",
    "–": "--",
    "≈": r"\ensuremath{\approx}",
    "×": r"\ensuremath{\times}",
    "≡": r"\ensuremath{\equiv}",
    "▲": r"\ensuremath{\blacktriangle}",
    "▼": r"\ensuremath{\blacktriangledown}",
    "◐": r"\ensuremath{\odot}",
    "●": r"\ensuremath{\bullet}",
    "○": r"\ensuremath{\circ}",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "✂": r"\ding{34}",
}
"""Letters that LaTeX takes as commands, or has only as commands."""

_COMMANDS = {ord(letter): command for letter, command in SPECIAL.items()}


def latex(table: Table) -> str:
    """The table as `table` environments: one, or several where it is too wide or too long for a page.

    In-distribution cells are bold. Needs PACKAGES and, as any LaTeX of today, UTF-8; letters that pdfLaTeX cannot be
    expected to have are written as their code point: [U+65E5].
    """
    texts = [[_cell(cell) for cell in row] for row in table.rows]
    plain = [[joined(cell) for cell in row] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(table.header, *plain, strict=True)]
    chunks = [texts[start : start + MOST_ROWS] for start in range(0, len(texts), MOST_ROWS)] or [[]]
    parts = [(block, chunk) for chunk in chunks for block in blocks(table, widths, ROOM)]
    found = [f"% needs \\usepackage{{{', '.join(PACKAGES)}}}"]
    for number, (block, chunk) in enumerate(parts, start=1):
        which = f" (part {number} of {len(parts)})" if len(parts) > 1 else ""
        above = escaped(" ".join([f"{table.title}{which}.", *(table.opening if number == 1 else [])]))
        label = f"\\label{{tab:{_label(table.slug)}}}" if number == 1 else ""
        grid = _tabular([table.header[column] for column in block], [[row[c] for c in block] for row in chunk], table)
        found += [
            "\\begin{table}[htbp]",
            "\\centering\\footnotesize",
            f"\\caption{{{above}{label}}}\\medskip",
            f"{FITTED}{{%\n{grid}}}",
            *(_below(table) if number == len(parts) else []),
            "\\end{table}",
        ]
    return "\n".join(found) + "\n"


def document(slugs: Sequence[str], title: str) -> str:
    """A document that reads the files <slug>.tex beside it; it compiles with pdfLaTeX, XeLaTeX and LuaLaTeX."""
    packages = [f"\\usepackage{{{name}}}" for name in PACKAGES]
    return "\n".join(
        [
            "\\documentclass{article}",
            "\\usepackage[T1]{fontenc}",
            "\\IfFileExists{lmodern.sty}{\\usepackage{lmodern}}{}",
            "\\usepackage[margin=2cm]{geometry}",
            *packages,
            "\\begin{document}",
            f"\\section*{{{escaped(title)}}}",
            *(f"\\input{{{slug}.tex}}\n\\clearpage" for slug in slugs),
            "\\end{document}",
            "",
        ]
    )


def escaped(text: str) -> str:
    """Text of which LaTeX shows every letter."""
    letters = {ord(letter): _code_point(letter) for letter in set(text) if not _is_common(letter)}
    return text.translate(letters | _COMMANDS)


def _is_common(letter: str) -> bool:
    """Whether a T1-encoded font has it: ASCII, and the letters of western and central European languages."""
    return " " <= letter < "\x7f" or ("À" <= letter <= "ž" and unicodedata.category(letter).startswith("L"))


def _code_point(letter: str) -> str:
    return " " if letter.isspace() else f"{{[}}U+{ord(letter):04X}{{]}}"


def _cell(cell: TableCell) -> str:
    text = escaped(joined(TableCell(cell.value, cell.change)))
    return (f"\\textbf{{{text}}}" if cell.in_distribution and text else text) + escaped(cell.marks)


def _tabular(header: Sequence[str], rows: Sequence[Sequence[str]], table: Table) -> str:
    lines = [
        f"\\begin{{tabular}}{{@{{}}{'l' * len(header)}@{{}}}}",
        "\\toprule",
        _row(map(escaped, header)),
        "\\midrule",
    ]
    for before, row in pairwise([None, *rows]):
        assert row is not None
        same = before is not None and table.heads > 1 and before[0] == row[0]
        if before is not None and table.heads > 1 and not same:
            lines.append("\\addlinespace")
        lines.append(_row(["", *row[1:]] if same else row))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])


def _row(cells: Sequence[str] | map[str]) -> str:
    return " & ".join(cells) + r" \\"


def _below(table: Table) -> list[str]:
    words = [line.replace(IN_DISTRIBUTION, "Bold") for line in table.caption]
    lines = [escaped(line) for line in (*words, *table.notes, *table.closing)]
    if not lines:
        return []
    return ["\\par\\medskip", "\\parbox{\\linewidth}{\\scriptsize\\raggedright", "\\par\n".join(lines) + "}"]


def _label(slug: str) -> str:
    return "".join(letter if letter.isascii() and letter not in "\\{}%#~^&$_" else "-" for letter in slug)
