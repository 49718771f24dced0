"""What counts as one line of a sweep's tables, and what its runs cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from quantbench.report.collate import collate
from quantbench.report.columns import DATA_FREE
from quantbench.report.costs import costs, write_costs
from quantbench.report.settings import settings
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.records import RunRecord
from quantbench.store.store import Store

Build = Callable[..., tuple[Store, Manifest]]
Record = Callable[..., RunRecord]
MakeCell = Callable[..., CellEntry]


def sweep(cells: list[CellEntry]) -> Manifest:
    return Manifest(name="demo", overrides=[], cells=cells)


def test_settings_are_short_and_leave_out_what_is_only_about_them() -> None:
    weight = {"_target_": "a.b.Int", "bits": 4, "skip": ["q", "k"], "group_size": None}
    config = {"_target_": "a.Recipe", "_partial_": True, "about": {"paper": "x"}, "weight": weight, "order": "act"}
    assert settings(config) == "weight=Int(bits=4, skip=['q', 'k']), order=act"


def test_only_overrides_that_differ_make_a_variant(make_cell: MakeCell, store: Store) -> None:
    def variant(bits: int, n: int, draw: int) -> CellEntry:
        changes = [f"quantizer.weight.bits={bits}", f"calib.n={n}", f"calib.draw={draw}", "+extra.a=1", "threads=2"]
        overrides = ["quantizer=gptq", "calib=wiki", "hydra.mode=MULTIRUN", *changes]
        return make_cell("wiki", "gptq", None, key=f"{bits} {n} {draw}", overrides=overrides, status="pending")

    cells = [variant(3, 16, 0), variant(4, 16, 1), variant(4, 128, 0)]
    frame = collate(store, [sweep(cells)])
    pairs = frame[~frame["full_precision"]][["variant", "calib_variant"]].drop_duplicates()
    assert pairs.values.tolist() == [
        ["weight.bits=3", "n=16"],
        ["weight.bits=4", "n=16"],
        ["weight.bits=4", "n=128"],
    ]


def test_a_data_free_recipe_is_one_run_also_if_some_of_its_cells_failed(
    store: Store, make_cell: MakeCell, make_record: Record
) -> None:
    store.save_run(make_record("r", calibration=None))
    cells = [
        make_cell("wiki", "rtn", "r", data_free=True, tasks={"wiki": None}, status="failed", error="E: x"),
        make_cell("news", "rtn", "r", data_free=True, tasks={"wiki": "a" * 64, "news": "b" * 64}),
    ]
    rows = collate(store, [sweep(cells)])
    rows = rows[~rows["full_precision"]]
    assert rows[["task", "protocol", "status"]].values.tolist() == [
        ["news", "b" * 64, "missing"],
        ["wiki", "a" * 64, "missing"],
    ]
    assert set(rows["calib"]) == {DATA_FREE}


def test_full_precision_among_the_cells_is_not_listed_twice(
    build_sweep: Build, make_cell: MakeCell, tmp_path: Path
) -> None:
    store, manifest = build_sweep(tmp_path)
    itself = make_cell("wiki", "none", "fp", data_free=True)
    frame = collate(store, [sweep([itself, *manifest.cells])])
    pd.testing.assert_frame_equal(frame, collate(store, [manifest]))


def test_costs_are_listed_per_run(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    for seconds in (2.0, 1.5):
        store.append_cost("rtn", {"environment": "laptop", "stage": "quantize", "seconds": seconds})
    store.append_cost("fp", {"environment": "laptop", "stage": "evaluate", "task": "wiki", "peak_memory_bytes": 10})
    frame = costs(store, [manifest])
    assert list(frame.columns)[-5:] == ["environment", "peak_memory_bytes", "seconds", "stage", "task"]
    rows = frame[["run_id", "quantizer", "stage", "seconds"]].fillna(0).values.tolist()
    assert rows == [["rtn", "rtn", "quantize", 2.0], ["rtn", "rtn", "quantize", 1.5], ["fp", "none", "evaluate", 0]]
    write_costs(store, "demo", frame)
    assert (store.sweep_dir("demo") / "costs.csv").read_text().count("\n") == 4
