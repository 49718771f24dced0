"""Recipes side by side: every run once, with its bits and costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from drawn_sweep import Grid
from quantbench.core.errors import StoreError
from quantbench.metrics.metrics import measure
from quantbench.report.collate import collate
from quantbench.report.columns import DATA_FREE
from quantbench.report.compare.overview import recipe_table
from quantbench.report.table import Table
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.records import RunRecord, Score
from quantbench.store.store import Store
from stored_sweep import cell, items, origin, score

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
    chosen = recipe_table(store, [manifest], ["accuracy"])
    assert [name for name in chosen.header if ": " in name] == ["stars: accuracy"]
    with pytest.raises(StoreError, match=r"metric acuracy: no task of these sweeps has it. There are: .*accuracy"):
        recipe_table(store, [manifest], ["acuracy"])


def test_runs_of_sweeps_that_call_them_alike_have_names_of_their_own(store: Store) -> None:
    grid = Grid(store, tasks=("wiki",))
    manifests = []
    for bits in (4, 8):
        grid.add(f"rtn{bits}", "rtn", 0.25, None, bits=bits)
        for draw in range(2):
            grid.add(f"gptq{bits}{draw}", "gptq", 0.09, "wiki", draw, bits)
        manifests.append(grid.manifest(f"w{bits}"))
    expected = {f"rtn weight.bits={bits} | {DATA_FREE}" for bits in (4, 8)}
    expected |= {f"gptq weight.bits={bits} | wiki draw={draw}" for bits in (4, 8) for draw in range(2)}
    for order in (1, -1):
        rows = recipe_table(store, manifests[::order], ["perplexity"]).rows
        assert {f"{row[0].value} | {row[1].value}" for row in rows} == expected | {f"none | {DATA_FREE}"}


def test_full_precision_has_the_bits_of_its_own_dtype(store: Store) -> None:
    grid = Grid(store, tasks=("wiki",))
    grid.add("rtn4", "rtn", 0.25, None)
    table = recipe_table(store, [grid.manifest("all")], ["perplexity"])
    assert texts(table, "bits")[f"none {DATA_FREE}"] == "32"


def test_scores_of_two_protocols_have_a_column_each(store: Store) -> None:
    grid = Grid(store, tasks=("wiki",))
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
