"""The folder tables/ of a sweep: every table in every format."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from quantbench.core import files
from quantbench.report.comparison_tables import comparison_tables
from quantbench.report.evidence import Evidence
from quantbench.report.html_table import html_page
from quantbench.report.latex import document, latex
from quantbench.report.pareto import pareto_tables
from quantbench.report.render import csv_table, escaped, markdown
from quantbench.report.shown import default_metrics
from quantbench.report.table import Table
from quantbench.report.tables import NO_EVIDENCE, tables
from quantbench.store.store import Store


def write_tables(
    store: Store,
    name: str,
    frame: pd.DataFrame,
    chosen: Sequence[str] | None = None,
    legend: Sequence[str] = (),
    evidence: Evidence = NO_EVIDENCE,
) -> list[Table]:
    """Write the tables of the chosen metrics into the sweep's folder tables/, and all in tables.md, .html and .tex.

    One file each as <slug>.md, .csv, .html and .tex: recipes by calibration set and test text; with evidence, bits
    against loss, and the comparisons themselves.

    chosen    None for default_metrics
    legend    lines below all of them
    evidence  what tests found
    Returns those of recipes by test text, in order, for the terminal.
    """
    metrics = list(chosen or default_metrics(frame))
    made = [table for metric in metrics for table in tables(frame, metric, evidence)]
    others = [*pareto_tables(frame, metrics, evidence), *comparison_tables(frame, metrics, evidence)]
    every = [*made, *others]
    folder = files.make_folder(store.sweep_dir(name) / "tables")
    texts = [markdown(table) for table in every]
    for table, text in zip(every, texts, strict=True):
        files.write_text(folder / f"{table.slug}.md", text)
        files.write_text(folder / f"{table.slug}.csv", csv_table(table))
        files.write_text(folder / f"{table.slug}.tex", latex(table))
        files.write_text(folder / f"{table.slug}.html", html_page(table.title, [table], legend))
    files.write_text(folder / "tables.md", "\n".join([f"# {name}", "", *texts, *_list(legend)]))
    files.write_text(folder / "tables.html", html_page(name, every, legend))
    files.write_text(folder / "tables.tex", document([table.slug for table in every], name))
    return made


def _list(lines: Sequence[str]) -> list[str]:
    return [*("- " + escaped(line) for line in lines), ""] if lines else []
