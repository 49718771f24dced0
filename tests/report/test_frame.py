"""Reading a stored sweep from Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from quantbench.core.errors import ConfigError, StoreError
from quantbench.report.collate import collate
from quantbench.report.comparisons import comparisons
from quantbench.report.frame import read_comparisons, read_sweep
from quantbench.store.manifest import Manifest
from quantbench.store.store import Store

Build = Callable[..., tuple[Store, Manifest]]


def test_a_sweep_is_read_from_where_results_lie(
    build_sweep: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, manifest = build_sweep(tmp_path / "outputs")
    before = sorted(store.root.rglob("*"))
    expected = collate(store, [manifest])
    pd.testing.assert_frame_equal(read_sweep("demo", store.root), expected)
    monkeypatch.setenv("QUANTBENCH_OUTPUTS", str(store.root))
    pd.testing.assert_frame_equal(read_sweep("demo"), expected)
    monkeypatch.delenv("QUANTBENCH_OUTPUTS")
    monkeypatch.chdir(tmp_path)
    pd.testing.assert_frame_equal(read_sweep("demo"), expected)
    assert sorted(store.root.rglob("*")) == before


def test_comparisons_of_a_sweep_are_read_with_margins(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    plain, stated = read_comparisons("demo", tmp_path), read_comparisons("demo", tmp_path, margins={"perplexity": 0.5})
    pd.testing.assert_frame_equal(plain, comparisons(store, [manifest]))
    data_free = stated[(stated["recipe"] == "rtn") & (stated["metric"] == "perplexity")]
    assert set(data_free["verdict"]) == {"equivalent"}
    assert "equivalent" not in set(plain["verdict"])
    with pytest.raises(ConfigError, match=r"margin kld=0\.1: no score has this metric"):
        read_comparisons("demo", tmp_path, margins={"kld": 0.1})


def test_what_has_been_finished_since_the_manifest_was_written_is_read(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    expected = read_sweep("demo", tmp_path)
    waiting = [dataclasses.replace(cell, status="pending", error=None) for cell in manifest.cells]
    store.save_manifest(dataclasses.replace(manifest, cells=waiting))
    frame = read_sweep("demo", tmp_path)
    is_open = frame["calib"] == "reviews"
    assert set(frame[is_open]["status"]) == {"pending"}
    pd.testing.assert_frame_equal(frame[~is_open], expected[~is_open])


def test_a_sweep_that_is_not_there_is_answered_with_those_that_are(build_sweep: Build, tmp_path: Path) -> None:
    build_sweep(tmp_path)
    with pytest.raises(StoreError, match=r"no sweep dem in .*\. Sweeps: demo$"):
        read_sweep("dem", tmp_path)
    with pytest.raises(StoreError, match=r"Sweeps: none$"):
        read_sweep("demo", tmp_path / "elsewhere")
