"""Stored sweeps as data frames, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from quantbench.core.errors import StoreError
from quantbench.core.paths import outputs_folder
from quantbench.report.collate import collate
from quantbench.report.comparisons import comparisons
from quantbench.store.manifest import Manifest
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
    return collate(*_stored(name, output_dir))


def read_comparisons(
    name: str, output_dir: Path | str | None = None, margins: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """The comparisons of a stored sweep as a frame: one row per pair of arms, test text and metric.

    Columns are those of comparisons.csv (docs/results.md): with full precision, between recipes, and between
    calibration sets, each with its interval over draws and clusters, p values, and a verdict.

    margins  metric -> the difference that does not matter, in the metric's unit, of perplexities in nats of their
             logarithm: {"kl": 0.01}. Smaller ones are called equivalent where that is shown

    Raises ConfigError for a metric that no score has, and for a margin in what seems to be another unit; StoreError as
    `read_sweep`.
    """
    store, manifests = _stored(name, output_dir)
    return comparisons(store, manifests, margins)


def _stored(name: str, output_dir: Path | str | None) -> tuple[Store, list[Manifest]]:
    store = Store(outputs_folder() if output_dir is None else Path(output_dir).expanduser())
    manifest = store.load_manifest(name)
    if manifest is None:
        raise StoreError(f"no sweep {name} in {store.root}. Sweeps: {', '.join(store.sweep_names()) or 'none'}")
    return store, [manifest]
