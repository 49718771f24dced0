"""The sources of variance side by side: for each recipe and test text the standard deviation that each brings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from quantbench.core import files
from quantbench.report.collate import csv_text
from quantbench.report.digits import rounded
from quantbench.report.render import markdown
from quantbench.report.shown import default_metrics
from quantbench.report.table import Table, TableCell
from quantbench.store.store import Store

SOURCES = {
    "items": "other test clusters",
    "draws": "another draw of the calibration text",
    "calibration sets": "another calibration text, controls left out",
    "seeds": "other random numbers of the method",
    "replicates": "the same sequences in another order",
}
"""What is changed in each; the columns are those that the sweep has."""

_STUDY = ["sweep", "model", "scale"]
_LINE = ["recipe", "settings", "calib_n", "calib_length", "environment", "task", "protocol"]


def write_variance(store: Store, name: str, frame: pd.DataFrame) -> None:
    """Write variance.csv, and variance.md with the tables of it, into the folder of the sweep, atomically."""
    folder = store.sweep_dir(name)
    files.write_text(folder / "variance.csv", csv_text(frame))
    tables = variance_tables(frame, default_metrics(frame))
    text = "\n".join(map(markdown, tables)) if tables else "No run with a score and its error yet.\n"
    files.write_text(folder / "variance.md", text)


def variance_tables(frame: pd.DataFrame, metrics: Sequence[str]) -> list[Table]:
    """One table per metric, model and scale of the frame of `quantbench.report.variance.variance`."""
    made = []
    for metric in metrics:
        chosen = frame[frame["metric"] == metric]
        for number, (study, rows) in enumerate(chosen.groupby(_STUDY, sort=False, dropna=False), start=1):
            made.append(_table(f"variance-{metric}-{number}", metric, study, rows))
    return made


def _table(slug: str, metric: str, study: Any, rows: pd.DataFrame) -> Table:
    sources = [name for name in SOURCES if (rows["source"] == name).any()]
    lines = [own.to_dict("records") for _, own in rows.groupby(_LINE, sort=False, dropna=False)]
    logarithm = bool(rows["of_logarithm"].any())
    title = f"What {metric} varies by ({rows['unit'].iloc[0]}): {', '.join(map(str, study[1:]))}"
    meant = "; ".join(f"{name}: {SOURCES[name]}" for name in sources)
    caption = [
        f"Standard deviations of one run's value if one thing alone is changed: {meant}. In brackets the 95 % interval."
    ]
    if logarithm:
        caption.append(f"Of the logarithm of {metric}: 0.01 is about one per cent.")
    if notes := sorted({f"{line['source']}: {line['note']}" for own in lines for line in own if _known(line["note"])}):
        caption.append("; ".join(notes) + ".")
    header = ["recipe", "test", "runs", "clusters", "value", *sources]
    return Table(slug, title, header, [_line(own, sources) for own in lines], caption)


def _line(own: Sequence[dict[Any, Any]], sources: Sequence[str]) -> list[TableCell]:
    first, by_source = own[0], {line["source"]: line for line in own}
    size = f"{first['calib_n']} x {first['calib_length']}" if _known(first["calib_n"]) else ""
    value = rounded(first["value"], by_source["items"]["sd"] if not first["of_logarithm"] else None)
    texts = [f"{first['recipe']}, {size}" if size else first["recipe"], first["task"], str(first["n_runs"])]
    cells = [_source(by_source.get(name)) for name in sources]
    return [TableCell(text) for text in (*texts, str(first["n_clusters"]), value, *cells)]


def _source(line: dict[Any, Any] | None) -> str:
    if line is None:
        return "–"
    if not _known(line["sd_high"]):
        return f"{line['sd']:.2g}"
    return f"{line['sd']:.2g} [{line['sd_low']:.2g}, {line['sd_high']:.2g}]"


def _known(value: object) -> bool:
    return value is not None and value is not pd.NA and value == value
