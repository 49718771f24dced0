"""Modelled time and memory of the runs of sweeps, as columns beside their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pandas as pd

from quantbench.core.errors import ConfigError
from quantbench.report.columns import columns_of, series
from quantbench.report.modelled.precision import precision_of
from quantbench.report.sweep_runs import SweepRun
from quantbench.roofline.cost import Cost, weight_bytes
from quantbench.roofline.hardware import Hardware
from quantbench.roofline.load import Load
from quantbench.roofline.shape import Shape
from quantbench.store.records import RunRecord

Shapes = Mapping[str, Shape]
"""Run id -> the shape of its model."""


class ModelledRow(TypedDict, total=False):
    """What is modelled of a run, on each chip; None where the run has no record yet."""

    modelled_hardware: Annotated[
        str | None, "the machine, by its name in the catalogue, and the load: batch, context, chips"
    ]
    modelled_arithmetic: Annotated[str | None, "arithmetic of quantized layers there: fp16, int8, fp8 or fp4"]
    modelled_weight_bytes: Annotated[
        float | None, "bytes of all weights, scales counted, what is not quantized in 16 bits"
    ]
    modelled_prefill_ms: Annotated[float | None, "modelled milliseconds until the first token"]
    modelled_decode_ms: Annotated[float | None, "modelled milliseconds for one token of each sequence"]
    modelled_memory_bytes: Annotated[float | None, "modelled bytes of weights, key-value cache and activations"]
    modelled_largest_batch: Annotated[
        int | None, "the most sequences that fit into 0.9 of the memory, or what is asked for"
    ]


MODELLED_COLUMNS = columns_of(ModelledRow)
"""Behind the others in results.csv, where hardware is named."""


@dataclass(frozen=True)
class Modelled:
    """Makes costs of runs on one machine under one load.

    machine  None: only the bytes of weights are known
    shapes   of the models, by run id: full-precision runs among them
    """

    machine: Hardware | None
    load: Load
    shapes: Shapes

    @property
    def words(self) -> str:
        """Machine and load."""
        return "" if self.machine is None else f"{self.machine.name}, {self.load.words}"

    def rows(self, runs: Sequence[SweepRun]) -> dict[str, ModelledRow]:
        """What is modelled of each finished run. Raises ConfigError for a record that is not of its model's shape."""
        records = {
            run.run_id: run.record for run in runs if run.record is not None and run.record.status == "quantized"
        }
        return {str(run_id): self._row(record) for run_id, record in records.items()}

    def cost(self, record: RunRecord) -> Cost:
        """The cost of a run on the machine. Raises ConfigError for a record that is not of its model's shape."""
        assert self.machine is not None
        model = self._shape(record)
        return Cost(model, precision_of(record, model), self.load, self.machine)

    def _shape(self, record: RunRecord) -> Shape:
        if record.run_id not in self.shapes:
            raise ConfigError(f"run {record.run_id}: the configuration of its model is not known")
        return self.shapes[record.run_id]

    def _row(self, record: RunRecord) -> ModelledRow:
        if self.machine is None:
            model = self._shape(record)
            return {"modelled_weight_bytes": weight_bytes(model, precision_of(record, model))}
        cost = self.cost(record)
        wanted = cost.precision.arithmetic
        return {
            "modelled_hardware": self.words,
            "modelled_arithmetic": wanted if wanted in self.machine.rates else "fp16",
            "modelled_weight_bytes": cost.weight_bytes,
            "modelled_prefill_ms": cost.prefill_ms,
            "modelled_decode_ms": cost.decode_ms,
            "modelled_memory_bytes": cost.memory_bytes,
            "modelled_largest_batch": cost.largest_batch,
        }


def with_modelled(results: pd.DataFrame, rows: Mapping[str, ModelledRow]) -> pd.DataFrame:
    """The frame of `collate` with MODELLED_COLUMNS behind its own."""
    found: list[Mapping[str, Any]] = [rows.get(str(run_id), {}) for run_id in results["run_id"]]
    new = {name: series(name, kind, [row.get(name) for row in found]) for name, kind in MODELLED_COLUMNS.items()}
    return results.assign(**{name: column.set_axis(results.index) for name, column in new.items()})
