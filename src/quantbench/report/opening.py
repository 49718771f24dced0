"""What a table opens with: the model, how much text was tested and calibrated on, and how many draws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from quantbench.metrics import metrics
from quantbench.report.columns import ResultRow


def opening(rows: Sequence[ResultRow], columns: Mapping[str, str], draws: Iterable[int]) -> list[str]:
    """The sentences before a table's numbers.

    rows     tidy rows of the table
    columns  the name of each task's column
    draws    of each line that has any
    """
    first = rows[0]
    quantized = [row for row in rows if not row["full_precision"]]
    scale = f", scale {first['scale']}" if first["scale"] else ""
    found = [f"Model {first['model']}{scale}.", f"Tests: {_items(rows, columns)}."]
    tokens, counts = spread((row["calib_tokens"] for row in rows), ",d"), spread(draws, "d")
    if tokens or counts:
        words = [f"{tokens} tokens"] if tokens else []
        words += [f"{counts} {'draw' if counts == '1' else 'draws'}"] if counts else []
        found.append(f"Calibration: {', '.join(words)}.")
    bits = spread((row["effective_bits"] for row in quantized), ".4g")
    if " to " in bits:
        found.append(f"The recipes store {bits} bits per weight: they are compared at different effective bits.")
    elif bits:
        found.append(f"{bits} bits per weight.")
    return found


def spread(values: Iterable[Any], form: str) -> str:
    """The values that are known, as they are formatted: "3", or "3 to 5"."""
    known = sorted({format(value, form): value for value in values if value is not None}.values())
    ends = [format(value, form) for value in (known[:1] + known[-1:] if len(known) > 1 else known)]
    return " to ".join(ends)


def _items(rows: Sequence[ResultRow], columns: Mapping[str, str]) -> str:
    """How much each column is measured on: said once if it is the same."""
    sizes = {task: {_size(row) for row in rows if row["task"] == task and row["n"] is not None} for task in columns}
    texts = {task: " or ".join(sorted(found)) for task, found in sizes.items() if found}
    if not texts:
        return "nothing scored"
    if len(set(texts.values())) == 1:
        return f"{next(iter(texts.values()))} per column"
    return ", ".join(f"{columns[task]}: {text}" for task, text in texts.items())


def _size(row: ResultRow) -> str:
    parts = [f"{row['n_tokens']:,d} tokens"] if row["n_tokens"] else []
    parts += [f"{row['n_clusters']:,d} clusters"] if row["n_clusters"] is not None else []
    return f"n = {row['n']:,d} {metrics.item_word(row['metric'] or '')}" + (f" ({', '.join(parts)})" if parts else "")
