"""layers.csv: one row per run and quantized weight."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from quantbench.report.layers import LAYER_COLUMNS, layers, write_layers
from quantbench.store.manifest import Manifest
from quantbench.store.records import LayerRecord
from quantbench.store.store import Store
from stored_sweep import cell, record

Build = Callable[..., tuple[Store, Manifest]]


def layer(name: str, loss: float | None, relative: float | None) -> LayerRecord:
    return LayerRecord(name=name, loss=loss, relative_loss=relative, bits_per_weight=4.25, seconds=0.5)


def test_every_run_has_a_row_for_each_of_its_weights(store: Store) -> None:
    store.save_run(record("a", layers=[layer("0.q", 0.5, 0.01), layer("0.k", 0.25, 0.02)]))
    store.save_run(record("b", calibration=None, layers=[layer("0.q", None, None)]))
    cells = [
        cell("wiki", "gptq", "a"),
        cell("wiki", "rtn", "b", data_free=True),
        cell("news", "rtn", "b", data_free=True),
    ]
    manifest = Manifest(
        name="demo", overrides=[], cells=[dataclasses.replace(one, tasks={}, task_origins={}) for one in cells]
    )
    frame = layers(store, [manifest])
    assert dict(frame.dtypes.astype(str)) == LAYER_COLUMNS
    told = frame[["run_id", "recipe", "calib", "draw", "layer", "relative_loss", "loss", "measured_on"]]
    assert told.astype(object).where(told.notna(), None).to_numpy().tolist() == [
        ["a", "gptq", "wiki", 0, "0.q", 0.01, 0.5, "wiki"],
        ["a", "gptq", "wiki", 0, "0.k", 0.02, 0.25, "wiki"],
        ["b", "rtn", "(none: data-free)", None, "0.q", None, None, None],
    ]
    write_layers(store, "demo", frame)
    again = pd.read_csv(store.sweep_dir("demo") / "layers.csv", dtype=LAYER_COLUMNS)
    pd.testing.assert_frame_equal(again, frame)


def test_a_sweep_without_layers_has_the_same_columns(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    frame = layers(store, [manifest])
    assert not len(frame)
    assert dict(frame.dtypes.astype(str)) == LAYER_COLUMNS
