"""Recipes side by side: every run once, differences paired, costs beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from quantbench.core.errors import StoreError
from quantbench.metrics.metrics import measure, paired
from quantbench.report.collate import collate
from quantbench.report.columns import DATA_FREE
from quantbench.report.compare import recipe_table
from quantbench.report.digits import change, with_error
from quantbench.report.table import Table
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.records import RunRecord, Score
from quantbench.store.store import Store
from stored_sweep import cell, items, origin, record, score

Build = Callable[..., tuple[Store, Manifest]]


def texts(table: Table, column: str) -> dict[str, str]:
    """A column by recipe and calibration set."""
    index = table.header.index(column)
    return {f"{row[0].value} {row[1].value}": row[index].value + row[index].marks for row in table.rows}


def test_every_run_has_one_row_with_its_bits_and_costs(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    costs = {"environment": "e", "what": "quantize", "cpu_seconds": 41.6, "peak_memory_bytes": 3 * 2**29}
    store.append_cost("rtn", costs | {"cpu_seconds": 99.0})
    store.append_cost("rtn", costs)
    table = recipe_table(store, [manifest], ["perplexity"])
    bits = texts(table, "bits")
    assert list(bits) == [
        "none (none: data-free)",
        "gptq news",
        "gptq reviews",
        "gptq wiki",
        "rtn (none: data-free)",
    ]
    assert bits["none (none: data-free)"] == "16"
    assert bits["gptq wiki"] == "3.250"
    assert texts(table, "CPU s")["rtn (none: data-free)"] == "42"
    assert texts(table, "GiB")["rtn (none: data-free)"] == "1.50"
    assert texts(table, "CPU s")["gptq wiki"] == ""
    assert texts(table, "wiki: perplexity")["gptq reviews"].startswith("FAILED")
    assert table.rows[1][0].marks == "†"


def test_differences_between_recipes_are_paired(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    table = recipe_table(store, [manifest], ["kl"], against="rtn")
    scored = ("wiki", "a" * 64)
    expected = paired("kl", store.load_items("wiki-gptq", *scored), store.load_items("rtn", *scored))
    assert expected is not None
    column = table.header.index("wiki: kl") + 1
    assert table.header[column] == "− rtn"
    found = {f"{row[0].value} {row[1].value}": row[column].value for row in table.rows}
    assert found["gptq wiki"] == with_error(expected.difference, expected.stderr, signed=True)
    assert found["rtn (none: data-free)"] == ""


def test_a_reference_that_is_not_there_is_named(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    with pytest.raises(StoreError, match=r"against awq: no such recipe in these sweeps. There are: .*gptq.*rtn"):
        recipe_table(store, [manifest], ["kl"], against="awq")


def test_a_task_has_columns_for_its_own_metrics(
    store: Store,
    make_record: Callable[..., RunRecord],
    make_items: Callable[..., pd.DataFrame],
    make_score: Callable[..., Score],
    make_cell: Callable[..., CellEntry],
) -> None:
    tasks = {"wiki": "a" * 64, "stars": "d" * 64}
    for run_id, quantizer, right in (("fp", "none", 6), ("rtn", "rtn", 3)):
        store.save_run(make_record(run_id, choices={"model": "smollm2", "quantizer": quantizer}, calibration=None))
        text = make_items()
        store.save_score(make_score(run_id, text), text)
        labels = text.assign(item=[f"stars:{i}" for i in range(8)], accuracy=[float(i < right) for i in range(8)])
        known = {"metrics": [measure("accuracy", labels)], "protocol": tasks["stars"]}
        store.save_score(dataclasses.replace(make_score(run_id, labels, task="wiki", **known), task="stars"), labels)
    cells = [make_cell("wiki", "rtn", "rtn", tasks=tasks, data_free=True)]
    manifest = Manifest(name="demo", overrides=[], cells=cells, caption={"scale": "smoke"})
    table = recipe_table(store, [manifest])
    assert [name for name in table.header if ": " in name] == ["stars: accuracy", "wiki: perplexity"]
    assert texts(table, "stars: accuracy") == {"none (none: data-free)": "0.75±0.16", "rtn (none: data-free)": "0.38"}
    chosen = recipe_table(store, [manifest], ["accuracy"], against="none")
    assert [name for name in chosen.header if ": " in name] == ["stars: accuracy"]
    assert texts(chosen, "− none")["rtn (none: data-free)"] == "-0.38±0.18"
    with pytest.raises(StoreError, match=r"metric acuracy: no task of these sweeps has it. There are: .*accuracy"):
        recipe_table(store, [manifest], ["acuracy"])


class Grid:
    """Stored runs of which each has its settings, its draw and its loss."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.cells: list[CellEntry] = []
        self.add("fp", "none", 0.0, None, bits_model=32.0, effective_bits=None)
        self.cells.clear()

    def add(
        self, run_id: str, quantizer: str, loss: float, calib: dict[str, Any] | None, bits: int = 4, **fields: Any
    ) -> None:
        weight = (
            {} if quantizer == "none" else {"weight": {"_target_": "quantbench.formats.int.IntFormat", "bits": bits}}
        )
        rounding = {} if calib is None else {"rounding": {"_target_": f"quantbench.{quantizer}", "damp": 0.01}}
        config: dict[str, Any] = {"model": {"path": "m"}, "quantizer": {**weight, **rounding}}
        if calib is not None:
            config |= {"calib": {"source": {"hub": "wiki"}, "n": 8, "draw": 0, **calib}, "seed": 42, "replicate": 0}
        usual: dict[str, Any] = {"config": config, "calibration": None if calib is None else config["calib"]}
        usual["choices"] = {"model": "smollm2", "quantizer": quantizer}
        self.store.save_run(record(run_id, **(usual | fields)))
        frame = items("wiki", loss, loss / 4 if loss else None)
        frame["nll"] += 0.01 * loss * np.random.default_rng(len(run_id) + ord(run_id[-1])).normal(size=len(frame))
        self.store.save_score(score(run_id, frame, "wiki"), frame)
        tasks = {"wiki": "a" * 64}
        self.cells.append(cell("wiki", quantizer, run_id, key=run_id, tasks=tasks, data_free=calib is None))

    def manifest(self, name: str) -> Manifest:
        cells, self.cells = self.cells, []
        return Manifest(name=name, overrides=[], cells=cells)

    def paired(self, run_id: str, other: str) -> str:
        found = paired("perplexity", *(self.store.load_items(one, "wiki", "a" * 64) for one in (run_id, other)))
        assert found is not None
        return change(found.difference, found.stderr)


def differences(table: Table, against: str) -> dict[str, str]:
    """The column of differences by the names of recipe and calibration set, which must be no one else's."""
    index = table.header.index(f"− {against}")
    names = [f"{row[0].value} | {row[1].value}" for row in table.rows]
    assert len(set(names)) == len(names)
    return {name: row[index].value + row[index].marks for name, row in zip(names, table.rows, strict=True)}


@pytest.mark.parametrize("setting", ["draw", "n", "seed"])
def test_a_run_is_compared_with_the_reference_that_is_calibrated_alike(store: Store, setting: str) -> None:
    grid = Grid(store)
    for value, (gptq, awq) in {0: (0.09, 0.08), 1: (0.05, 0.06), 2: (0.12, 0.03)}.items():
        grid.add(f"gptq{value}", "gptq", gptq, {setting: value})
        grid.add(f"awq{value}", "awq", awq, {setting: value})
    table = recipe_table(store, [grid.manifest("seeds")], ["perplexity"], against="gptq")
    found = differences(table, "gptq")
    for value in range(3):
        assert found[f"awq | wiki {setting}={value}"] == grid.paired(f"awq{value}", f"gptq{value}")
        assert found[f"gptq | wiki {setting}={value}"] == ""
    only = [item for item in store.run_ids() if item != "gptq2"]
    grid.cells = [cell("wiki", one[:-1], one, key=one, tasks={"wiki": "a" * 64}) for one in only if one != "fp"]
    table = recipe_table(store, [grid.manifest("seeds")], ["perplexity"], against="gptq")
    assert differences(table, "gptq")[f"awq | wiki {setting}=2"].startswith("[")
    assert any("no run of gptq with these settings, calibrated on the same sequences" in line for line in table.notes)


def test_sweeps_that_call_recipes_alike_are_compared_by_their_settings(store: Store) -> None:
    grid = Grid(store)
    manifests = []
    for bits, (rtn, gptq) in {4: (0.25, 0.09), 8: (0.02, 0.01)}.items():
        grid.add(f"rtn{bits}", "rtn", rtn, None, bits)
        grid.add(f"gptq{bits}", "gptq", gptq, {}, bits)
        manifests.append(grid.manifest(f"w{bits}"))
    for order in (1, -1):
        found = differences(recipe_table(store, manifests[::order], ["perplexity"], against="rtn"), "rtn")
        for bits in (4, 8):
            assert found[f"gptq weight.bits={bits} | wiki"] == grid.paired(f"gptq{bits}", f"rtn{bits}")
            assert found[f"rtn weight.bits={bits} | {DATA_FREE}"] == ""
    grid.add("gptq2", "gptq", 0.4, {}, 2)
    table = recipe_table(store, [*manifests, grid.manifest("w2")], ["perplexity"], against="rtn")
    assert differences(table, "rtn")["gptq weight.bits=2 | wiki"].startswith("[")


def test_an_ambiguous_reference_is_none(store: Store) -> None:
    grid = Grid(store)
    grid.add("rtn4", "rtn", 0.25, None, 4)
    grid.add("rtn8", "rtn", 0.02, None, 8)
    grid.add("nf", "nf4", 0.2, None, config={"model": {"path": "m"}, "quantizer": {"weight": {"values": "nf4"}}})
    table = recipe_table(store, [grid.manifest("all")], ["perplexity"], against="rtn")
    assert differences(table, "rtn")[f"nf4 | {DATA_FREE}"].startswith("[")
    assert any("2 runs of rtn differ in weight.bits, and none is like this one" in line for line in table.notes)


def test_full_precision_has_the_bits_of_its_own_dtype(store: Store) -> None:
    grid = Grid(store)
    grid.add("rtn4", "rtn", 0.25, None)
    table = recipe_table(store, [grid.manifest("all")], ["perplexity"])
    assert texts(table, "bits")[f"none {DATA_FREE}"] == "32"


def test_scores_of_two_protocols_have_a_column_each(store: Store) -> None:
    grid = Grid(store)
    grid.add("rtn4", "rtn", 0.25, None)
    first = grid.manifest("first")
    for run_id in ("fp", "rtn4"):
        frame = items("wiki", 0.5)
        store.save_score(score(run_id, frame, protocol="d" * 64), frame)
    second = Manifest(
        name="second",
        overrides=[],
        cells=[cell("wiki", "rtn", "rtn4", tasks={"wiki": "d" * 64}, data_free=True)],
    )
    table = recipe_table(store, [first, second], ["perplexity"])
    assert [name for name in table.header if ": " in name] == [
        "wiki: perplexity [aaaaaaaa]",
        "wiki: perplexity [dddddddd]",
    ]
    row = next(row for row in table.rows if row[0].value == "rtn")
    assert row[3] != row[4]


def test_a_run_is_named_by_its_data_and_not_by_its_option(
    build_sweep: Build, make_cell: Callable[..., CellEntry], tmp_path: Path
) -> None:
    store, manifest = build_sweep(tmp_path)
    reviews = origin("mr2", domain="film reviews")
    cells = [dataclasses.replace(manifest.cells[0], calib_origins=[reviews]), *manifest.cells[1:]]
    both = [origin("mr2"), origin("news")]
    cells.append(make_cell("mix", "gptq", None, key="mix", status="pending", calib_origins=both))
    frame = collate(store, [dataclasses.replace(manifest, cells=cells)])
    told = ["calib", "calib_distribution", "calib_family", "calib_domain", "calib_language"]
    found = {row[0]: row[1:] for row in frame[told].drop_duplicates().fillna("").values.tolist()}
    assert found == {
        "mr2": ["mr2", "lm", "film reviews", "en"],
        "news": ["news", "lm", "news", "en"],
        "reviews": ["reviews", "lm", "reviews", "en"],
        "mix": ["mr2 + news", "lm", "mr2 + news", "en"],
        DATA_FREE: ["", "", "", ""],
    }
    other = dataclasses.replace(cells[1], key="again", calib_origins=[reviews])
    frame = collate(store, [dataclasses.replace(manifest, cells=[cells[0], other])])
    assert {"mr2 (wiki)", "mr2 (news)"} <= set(frame["calib"])
