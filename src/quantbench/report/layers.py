"""What each layer of a quantized model lost: layers.csv, one row per run of a sweep and quantized weight."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from quantbench.core import files
from quantbench.report.sweep_runs import SweepRun, sweep_runs
from quantbench.store.manifest import Manifest
from quantbench.store.records import Observed
from quantbench.store.store import Store

FLOAT_FORMAT = "%.10g"

LAYER_COLUMNS = {
    "sweep": "string",
    "run_id": "string",
    "recipe": "string",
    "calib": "string",
    "draw": "Int64",
    "layer": "string",
    "relative_loss": "Float64",
    "loss": "Float64",
    "bits_per_weight": "Float64",
    "measured_on": "string",
}
"""Columns and their types, in the order of the file.

relative_loss  squared change of the layer's outputs as a share of its outputs, over the text in `measured_on`
loss           tr(dW H dW^T) / out, where a Hessian was collected
measured_on    the calibration text; of a data-free recipe the one that was at hand when it was quantized, if one was
"""


def layers(store: Store, manifests: Sequence[Manifest]) -> pd.DataFrame:
    """The quantized weights of the sweeps' runs, in the order they were quantized, as a frame of LAYER_COLUMNS."""
    rows: list[tuple[object, ...]] = []
    for manifest in manifests:
        seen: set[str] = set()
        for run in sweep_runs(store, manifest):
            if run.run_id is not None and run.run_id not in seen:
                seen.add(run.run_id)
                rows += _rows(run, store.load_observed(run.run_id))
    return pd.DataFrame(rows, columns=list(LAYER_COLUMNS)).astype(LAYER_COLUMNS)


def write_layers(store: Store, name: str, frame: pd.DataFrame) -> None:
    """Write layers.csv into the folder of the sweep, atomically."""
    text = frame.to_csv(index=False, float_format=FLOAT_FORMAT, lineterminator="\n")
    files.write_text(store.sweep_dir(name) / "layers.csv", text)


def _rows(run: SweepRun, observed: Observed | None) -> list[tuple[object, ...]]:
    record = run.record
    if record is None or not record.layers:
        return []
    recipe = " ".join(part for part in (run.quantizer, run.variant) if part)
    calib = " ".join(part for part in (run.calib, run.calib_variant) if part)
    told = (run.sweep, record.run_id, recipe, calib, run.identity("draw"))
    measured = {} if observed is None else observed.relative_loss
    found: list[tuple[object, ...]] = []
    for layer in record.layers:
        loss, text = layer.relative_loss, calib
        if loss is None and observed is not None:
            loss, text = measured.get(layer.name), observed.text
        on = None if loss is None else text
        found.append((*told, layer.name, loss, layer.loss, layer.bits_per_weight, on))
    return found
