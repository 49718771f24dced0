"""Recipes side by side: every run once, differences paired, costs beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from quantbench.core.errors import StoreError
from quantbench.metrics.metrics import measure, paired
from quantbench.report.compare import recipe_table
from quantbench.report.digits import with_error
from quantbench.report.table import Table
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.records import RunRecord, Score
from quantbench.store.store import Store

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
