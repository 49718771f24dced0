"""Recipes side by side: every run once, differences paired, costs beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quantbench.errors import StoreError
from quantbench.results.compare import recipe_table
from quantbench.results.digits import with_error
from quantbench.results.manifest import Manifest
from quantbench.results.metrics import paired
from quantbench.results.store import Store
from quantbench.results.tables import Table

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
    place = ("wiki", "a" * 64)
    expected = paired("kl", store.load_items("wiki-gptq", *place), store.load_items("rtn", *place))
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
