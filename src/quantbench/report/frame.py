"""Stored sweeps as data frames, for notebooks and scripts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from quantbench.core.errors import StoreError
from quantbench.core.paths import outputs_folder
from quantbench.report.collate import collate
from quantbench.store.store import Store


def read_sweep(name: str, output_dir: Path | str | None = None) -> pd.DataFrame:
    """The results of a stored sweep as a tidy frame: one row per run, task and metric, columns as in docs/results.md.

    The frame is made from the runs in the store, like results.csv by `quantbench collate`; nothing is written. Cells
    that have not run, or are under way, have the status "pending" and empty values.

    name        as `quantbench status` lists it
    output_dir  None: the environment variable QUANTBENCH_OUTPUTS, else outputs/ in the working folder

    Raises StoreError, naming the sweeps there are, if there is no such sweep; and if a stored file is damaged or of
    another schema.
    """
    store = Store(outputs_folder() if output_dir is None else Path(output_dir).expanduser())
    manifest = store.load_manifest(name)
    if manifest is None:
        raise StoreError(f"no sweep {name} in {store.root}. Sweeps: {', '.join(store.sweep_names()) or 'none'}")
    return collate(store, [manifest])
