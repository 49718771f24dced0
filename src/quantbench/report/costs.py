"""What runs cost: measurements, which differ from time to time and are therefore kept out of results.csv."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from quantbench.core import files
from quantbench.report.sweep_runs import sweep_runs
from quantbench.store.manifest import Manifest
from quantbench.store.store import Store

RUN_COLUMNS = ["sweep", "model", "calib", "calib_variant", "quantizer", "variant", "run_id"]


def costs(store: Store, manifests: Sequence[Manifest]) -> pd.DataFrame:
    """All measurements of the runs of sweeps, oldest first within a run: what the run is, then what was measured."""
    rows: list[dict[str, Any]] = []
    for manifest in manifests:
        seen: set[str] = set()
        for run in sweep_runs(store, manifest):
            if run.run_id is not None and run.run_id not in seen:
                seen.add(run.run_id)
                told = (run.sweep, run.model, run.calib, run.calib_variant, run.quantizer, run.variant, run.run_id)
                rows += [dict(zip(RUN_COLUMNS, told, strict=True)) | cost for cost in store.load_costs(run.run_id)]
    measured = sorted({key for row in rows for key in row} - set(RUN_COLUMNS))
    return pd.DataFrame(rows, columns=[*RUN_COLUMNS, *measured])


def write_costs(store: Store, name: str, frame: pd.DataFrame) -> None:
    """Write costs.csv into the folder of the sweep, atomically."""
    files.write_text(store.sweep_dir(name) / "costs.csv", frame.to_csv(index=False, lineterminator="\n"))
