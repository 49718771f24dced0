"""The manifest of a sweep: every cell of the grid, whatever became of it.

Results are collated from it, so that a cell that failed or never ran is seen.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar, Literal

from pydantic.dataclasses import dataclass

from quantbench.core.component import STRICT
from quantbench.core.origin import Origin
from quantbench.store.json_record import SCHEMA_VERSION, JsonRecord


@dataclass(config=STRICT, frozen=True, kw_only=True)
class CellEntry:
    """One cell of a grid.

    key              unique in the manifest
    choices          the option chosen in each group (model, calib, quantizer, scale, ...)
    overrides        the cell's full list of overrides, "key=value"
    run_id           None while it is not known
    baseline_run_id  the full-precision run it is compared with
    tasks            task name -> protocol id, None until it is known
    task_origins     task name -> the data set it tests on
    calib_origins    the data sets calibrated on: several for a mixture, none for a data-free recipe
    error            of a failed cell: one line, "Type: message"
    data_free        the recipe reads no calibration data, and cells that differ only in it are one run: not so with
                     share_data_free=false, where each is a run of its own and names its calib_origins
    calib_said       of a checkpoint that was read: what its user says it was calibrated on, or "unknown"
    """

    key: str
    choices: dict[str, str]
    overrides: list[str]
    tasks: dict[str, str | None]
    task_origins: dict[str, Origin]
    calib_origins: list[Origin] = field(default_factory=list)
    status: Literal["pending", "done", "failed"] = "pending"
    run_id: str | None = None
    baseline_run_id: str | None = None
    error: str | None = None
    data_free: bool = False
    calib_said: str | None = None

    def __post_init__(self) -> None:
        if self.tasks.keys() != self.task_origins.keys():
            odd = sorted(self.tasks.keys() ^ self.task_origins.keys())
            raise ValueError(f"cell {self.key}: each task needs its origin, and only tasks have one: {', '.join(odd)}")
        if self.data_free and self.calib_origins:
            raise ValueError(f"cell {self.key} is data-free and names calib_origins")

    def choice(self, group: str) -> str:
        """The option chosen in a group, "" if the cell chose none."""
        return self.choices.get(group, "")


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Manifest(JsonRecord):
    """A sweep: its name, the overrides all cells share, what its captions say (scale, windows, ...), and its cells."""

    what: ClassVar[str] = "sweep manifest"

    schema_version: int = SCHEMA_VERSION
    name: str
    overrides: list[str]
    cells: list[CellEntry]
    caption: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        keys = [cell.key for cell in self.cells]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"cell keys must be unique; these occur more than once: {', '.join(twice)}")
