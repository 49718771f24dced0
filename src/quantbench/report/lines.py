"""The lines of a table: a recipe and what it was calibrated on, with the runs of all its draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from quantbench.report.arms import without_seeds
from quantbench.report.columns import ResultRow

FULL = "(full precision)"


@dataclass(frozen=True)
class Line:
    """A recipe calibrated on one set.

    rows  those of one metric by task: one for each draw, seed and replicate
    """

    recipe: str
    calib: str
    rows: dict[str, list[ResultRow]] = field(default_factory=dict)

    def all_rows(self) -> Iterable[ResultRow]:
        """The rows of all tasks."""
        return (row for rows in self.rows.values() for row in rows)

    @property
    def n_draws(self) -> int:
        """How many runs it has, done or not; 0 where nothing is drawn."""
        most = max(map(len, self.rows.values()))
        drawn = any(not (row["full_precision"] or row["data_free"]) for row in self.all_rows())
        return most if drawn or most > 1 else 0


def lines_of(rows: Sequence[ResultRow]) -> list[Line]:
    """The lines, in the order of the rows. Two runs of one draw and one name have a line each, named by run id."""
    lines: dict[tuple[str, str], Line] = {}
    for row in rows:
        parts = (row["quantizer"], without_seeds(row["variant"]))
        recipe = FULL if row["full_precision"] else " ".join(part for part in parts if part)
        calib = "" if row["full_precision"] else " ".join(p for p in (row["calib"], row["calib_variant"]) if p)
        known = lines.get((recipe, calib))
        if known is not None and any(_draw(one) == _draw(row) for one in known.rows.get(row["task"], [])):
            calib = f"{calib} [{row['run_id'] or 'no run'}]".strip()
        line = lines.setdefault((recipe, calib), Line(recipe, calib))
        line.rows.setdefault(row["task"], []).append(row)
    return list(lines.values())


def _draw(row: ResultRow) -> tuple[object, ...]:
    """Which draw a row is of; of a run without a record that is not known, and it is like no other."""
    replicates = (row["seed"], row["draw"], row["replicate"], row["variant"])
    return replicates if row["status"] in {"done", "missing"} else (*replicates, id(row))
