"""LaTeX that compiles and HTML that a screen reader can follow."""

from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from quantbench.report.caption import IN_DISTRIBUTION
from quantbench.report.html_table import html_page, html_table
from quantbench.report.latex import document, escaped, latex
from quantbench.report.layout import blocks
from quantbench.report.table import Table, TableCell

NASTY = r"100 % of a_b & {c} #1 $x^2$ ~ \d <e> [f] | ±−–≈×≡▲▼◐●○†‡§✂ é ł 日 \"q\""


def table(columns: int = 2, rows: int = 3, name: str = "news") -> Table:
    body = [
        [
            TableCell(f"recipe {row // 2}"),
            TableCell(NASTY if row == 0 else "wiki"),
            *[TableCell("30.8", "+1.68±0.14▼", "†[1]", in_distribution=row == column) for column in range(columns)],
        ]
        for row in range(rows)
    ]
    return Table(
        slug="perplexity-smollm2",
        title=f"perplexity ({NASTY})",
        header=["recipe", "calibration", *(f"{name}{index}" for index in range(columns))],
        rows=body,
        caption=[f"{IN_DISTRIBUTION} = own text", NASTY],
        notes=["[1] failed: x_y"],
        opening=["Model smollm2."],
        closing=["On wiki, nothing is shown."],
        heads=2,
    )


class Page(HTMLParser):
    """Collects tags with their attributes, and the text of cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


def test_html_has_caption_scopes_groups_and_nothing_from_elsewhere() -> None:
    text = html_page("demo & co", [table()], ["a = /x<y>"])
    page = Page(text)
    scopes = [attributes["scope"] for tag, attributes in page.tags if tag == "th"]
    assert scopes == ["col"] * 4 + ["rowgroup", "row", "row", "rowgroup", "row"]
    assert [attributes.get("rowspan") for tag, attributes in page.tags if attributes.get("scope") == "rowgroup"] == [
        "2",
        "1",
    ]
    assert page.texts["caption"] == [f"perplexity ({NASTY})"]
    assert ("html", {"lang": "en"}) in page.tags
    assert not {"src", "href"} & {name for _, attributes in page.tags for name in attributes}
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.tags}
    assert [attributes["title"] for tag, attributes in page.tags if tag == "abbr"][:2] == [
        "worse",
        "something gave way while quantizing",
    ]
    assert sum(attributes.get("class") == "own" for _, attributes in page.tags) == 2
    assert "Bold = own text" in page.texts["li"]
    assert "On wiki, nothing is shown." in page.texts["strong"]


def test_a_plain_table_has_a_heading_per_row() -> None:
    plain = Table("a", "A", ["name", "x"], [[TableCell("b"), TableCell("1")], [TableCell("c"), TableCell("2")]])
    page = Page(html_table(plain))
    assert [attributes.get("scope") for tag, attributes in page.tags if tag == "th"] == ["col", "col", "row", "row"]
    assert sum(tag == "tbody" for tag, _ in page.tags) == 1


def test_latex_escapes_what_latex_takes_as_a_command() -> None:
    assert escaped("a_b & 5 % {x} \\d") == r"a\_b \& 5 \% \{x\} \textbackslash{}d"
    assert escaped("日 ü") == "{[}U+65E5{]} ü"
    text = latex(table())
    assert r"\textbf{30.8 +1.68\ensuremath{\pm}0.14\ensuremath{\blacktriangledown}}\dag{}{[}1{]}" in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == text.count(r"\addlinespace")
    assert "Bold = own text" in text


def test_wide_and_long_latex_tables_are_split_and_each_part_names_its_rows() -> None:
    text = latex(table(columns=12, rows=50, name="a long name of a text "))
    parts = text.count(r"\begin{table}")
    assert parts > 2
    assert f"(part 1 of {parts})" in text
    assert text.count("recipe & calibration & ") == parts
    assert text.count(r"\label{") == 1
    assert text.count("On wiki, nothing is shown.") == 1


@pytest.mark.parametrize(
    ("room", "expected"),
    [(200, [[0, 1, 2, 3]]), (50, [[0, 1, 2, 3]]), (45, [[0, 1, 2], [0, 1, 3]]), (5, [[0, 1, 2], [0, 1, 3]])],
)
def test_columns_that_belong_together_are_parted_only_if_they_do_not_fit(room: int, expected: list[list[int]]) -> None:
    made = Table("a", "A", ["a", "b", "c", "d"], [], heads=2, follows=frozenset({3}))
    assert blocks(made, [10, 10, 10, 14], room) == expected


def test_latex_compiles_as_it_is(tmp_path: Path) -> None:
    compiler = shutil.which("pdflatex") or shutil.which("tectonic")
    if compiler is None:
        pytest.skip("neither pdflatex nor tectonic is installed: LaTeX tables are not compiled")
    made = {"small": table(), "wide": table(columns=7, rows=46, name="a long name of a text ")}
    for slug, one in made.items():
        (tmp_path / f"{slug}.tex").write_text(latex(one), encoding="utf-8")
    (tmp_path / "tables.tex").write_text(document(list(made), f"sweep {NASTY}"), encoding="utf-8")
    options = ["-interaction=nonstopmode", "-halt-on-error"] if compiler.endswith("pdflatex") else []
    done = subprocess.run([compiler, *options, "tables.tex"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / "tables.pdf").stat().st_size > 10_000
