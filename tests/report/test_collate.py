"""The tidy table: complete, paired, deterministic, and honest about what is missing."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import sem, ttest_1samp, ttest_rel

from quantbench.cli import commands, sweeps
from quantbench.core.errors import StoreError
from quantbench.metrics import metrics
from quantbench.report.collate import collate, csv_text, write, write_comparisons
from quantbench.report.columns import DATA_FREE, RESULT_COLUMNS, result_frame, result_rows
from quantbench.report.comparison_columns import COMPARISON_COLUMNS
from quantbench.report.comparisons import comparisons
from quantbench.report.verify import verify_sweep
from quantbench.store.json_record import SCHEMA_VERSION
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.records import RunRecord, Score
from quantbench.store.store import Store
from stored_sweep import PROTOCOLS, origin

Build = Callable[..., tuple[Store, Manifest]]
Record = Callable[..., RunRecord]
Scored = Callable[..., Score]
Items = Callable[..., pd.DataFrame]
MakeCell = Callable[..., CellEntry]


def sweep(cells: list[CellEntry], name: str = "demo") -> Manifest:
    return Manifest(name=name, overrides=[], cells=cells)


def only(frame: pd.DataFrame, **values: str) -> pd.Series[Any]:
    for name, value in values.items():
        frame = frame[(frame[name] == value).fillna(False)]
    assert len(frame) == 1
    return frame.iloc[0]


def test_every_run_task_and_metric_has_one_row(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    frame = collate(store, [manifest])
    assert list(frame.columns) == list(RESULT_COLUMNS)
    assert [str(kind) for kind in frame.dtypes] == [column.dtype for column in RESULT_COLUMNS.values()]
    counts = frame.groupby(["quantizer", "calib"]).size().to_dict()
    assert counts == {
        ("none", DATA_FREE): 3 * 2,
        ("rtn", DATA_FREE): 3 * 4,
        ("gptq", "wiki"): 3 * 4,
        ("gptq", "news"): 3 * 4,
        ("gptq", "reviews"): 3 * 4,
    }
    assert not frame.duplicated(["run_id", "task", "metric"]).any()


def test_differences_are_paired_with_full_precision(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    frame = collate(store, [manifest])
    row = only(frame, run_id="wiki-gptq", task="news", metric="bits_per_byte")
    items = [store.load_items(run, "news", "b" * 64) for run in ("wiki-gptq", "fp", "news-gptq")]
    expected = metrics.paired("bits_per_byte", items[0], items[1])
    own = metrics.paired("bits_per_byte", items[0], items[2])
    assert expected is not None
    assert own is not None
    assert row["baseline"] == "fp"
    names = ["difference", "difference_stderr", "difference_low", "difference_high"]
    assert row[names].tolist() == pytest.approx(
        [expected.difference, expected.stderr, expected.lower, expected.upper], rel=1e-9
    )
    gaps = ["transfer_gap", "transfer_gap_stderr", "transfer_gap_low", "transfer_gap_high"]
    assert row[gaps].tolist() == pytest.approx([own.difference, own.stderr, own.lower, own.upper], rel=1e-9)
    full = only(frame, run_id="fp", task="news", metric="bits_per_byte")
    assert row["value"] - full["value"] == pytest.approx(row["difference"])
    assert (row["in_distribution"], row["calib_tokens"], row["seed"], row["draw"]) == (False, 16384, 42, 0)
    assert row["settings"] == "weight=Int(bits=3, group_size=64)"


def test_a_perplexity_differs_by_its_ratio_at_full_precisions_value(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    frame = collate(store, [manifest])
    row, full = (only(frame, run_id=run, task="news", metric="perplexity") for run in ("wiki-gptq", "fp"))
    losses = [store.load_items(run, "news", "b" * 64)["nll"].to_numpy() for run in ("wiki-gptq", "fp")]
    low, high = ttest_rel(*losses).confidence_interval(0.95)  # a window a cluster, of equally many tokens
    expected = [full["value"] * math.expm1(end) for end in (low, high)]
    assert row[["difference_low", "difference_high"]].tolist() == pytest.approx(expected)
    stderr = sem(losses[0] - losses[1])
    assert row["difference_stderr"] == pytest.approx(row["value"] * stderr)
    low, high = ttest_1samp(losses[0], 0).confidence_interval(0.95)
    assert row[["value_low", "value_high"]].tolist() == pytest.approx([math.exp(low), math.exp(high)])


def test_rows_say_what_was_quantized_how_and_where(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    frame = collate(store, [manifest])
    row = only(frame, run_id="wiki-gptq", task="news", metric="perplexity")
    assert (row["weight_bits"], row["group_size"], row["n_clusters"]) == (3, "64", 8)
    assert row["schema_version"] == SCHEMA_VERSION
    assert (row["verdict"], row["p"] < row["p_holm"]) == ("undecided", True)  # one calibration draw decides nothing
    rtn = only(frame, run_id="rtn", task="news", metric="perplexity")
    assert (rtn["verdict"], rtn["p_holm"] <= 0.05) == ("worse", True)
    assert frame[frame["metric"] == "kl"]["verdict"].isna().all()


def test_a_divergence_has_no_difference_from_full_precision(build_sweep: Build, tmp_path: Path) -> None:
    frame = collate(*wrapped(build_sweep(tmp_path)))
    row = only(frame, run_id="wiki-gptq", task="news", metric="kl")
    assert pd.isna(row["difference"])
    assert pd.isna(row["error"])
    assert row["transfer_gap"] > 0


def wrapped(pair: tuple[Store, Manifest]) -> tuple[Store, list[Manifest]]:
    return pair[0], [pair[1]]


def test_a_relation_follows_from_the_manifest_also_where_nothing_was_scored(
    build_sweep: Build, make_cell: MakeCell, tmp_path: Path
) -> None:
    store, manifest = build_sweep(tmp_path)
    mixed = make_cell(
        "mix", "gptq", None, status="pending", calib_origins=[origin("wiki"), origin("de", language="de")]
    )
    random = make_cell("random", "gptq", None, status="pending", calib_origins=[origin("random", family="control")])
    unknown = make_cell("mine", "gptq", None, status="pending", calib_origins=[origin("mine", language="unknown")])
    frame = collate(store, [sweep([*manifest.cells, mixed, random, unknown])])
    rows = [row for row in result_rows(frame) if row["metric"] == "kl"]
    found = {(row["calib"], row["task"]): (row["relation"], row["in_distribution"]) for row in rows}
    near, untold = ("near OOD", False), (None, False)
    for calib, expected in {
        "reviews": {"wiki": near, "news": near, "reviews": ("in-distribution", True)},
        "mix": {"wiki": ("mixed", None), "news": near, "reviews": near},
        "random": dict.fromkeys(PROTOCOLS, ("control", False)),
        "mine": dict.fromkeys(PROTOCOLS, untold),
        DATA_FREE: dict.fromkeys(PROTOCOLS, (None, None)),
    }.items():
        assert {task: found[calib, task] for task in PROTOCOLS} == expected


def test_a_description_that_has_changed_is_that_of_the_manifest_and_is_said(
    build_sweep: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, manifest = build_sweep(tmp_path)
    collate(store, [manifest])
    assert caplog.text == ""
    moved = origin("news", path="elsewhere")
    german = origin("wiki", language="de")
    cells = [
        dataclasses.replace(cell, task_origins=cell.task_origins | {"wiki": german, "news": moved})
        for cell in manifest.cells
    ]
    frame = collate(store, [sweep(cells)])
    row = only(frame, run_id="news-gptq", task="wiki", metric="perplexity")
    assert (row["relation"], row["language"]) == ("far OOD", "de")
    assert "sweep demo: described otherwise now than when its results were made: wiki." in caplog.text


def test_failed_and_pending_cells_have_rows_with_empty_values(
    build_sweep: Build, make_cell: MakeCell, tmp_path: Path
) -> None:
    store, manifest = build_sweep(tmp_path)
    waiting = make_cell("wiki", "awq", None, status="pending", tasks={"wiki": None, "unseen": None})
    frame = collate(store, [sweep([*manifest.cells, waiting])])
    failed = frame[frame["calib"] == "reviews"]
    assert set(failed["metric"]) == {"perplexity", "bits_per_byte", "kl", "top1_agreement"}
    assert set(failed["task"]) == {"wiki", "news", "reviews"}
    assert set(failed["status"]) == {"failed"}
    assert set(failed["error"]) == {"ModelError: layer 3 is not finite"}
    assert failed[["value", "stderr", "n", "difference"]].isna().all(axis=None)
    pending = frame[frame["quantizer"] == "awq"]
    assert set(pending["status"]) == {"pending"}
    assert only(pending, task="unseen")["metric"] is pd.NA


def test_the_error_of_a_failed_run_is_found_in_its_record(
    store: Store, make_record: Record, make_cell: MakeCell
) -> None:
    error = {"type": "DataError", "message": "too\nshort", "traceback": "...", "log_tail": ""}
    store.save_run(make_record("r", status="failed", error=error))
    store.save_run(make_record("fp", status="failed", error=error))
    frame = collate(store, [sweep([make_cell("wiki", "gptq", "r", status="failed")])])
    assert set(frame["error"]) == {"DataError: too short"}
    assert frame["full_precision"].sum() == 3


def test_a_score_that_is_not_there_is_missing(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    next((store.run_dir("rtn") / "scores").glob("news-*.json")).unlink()
    frame = collate(store, [manifest])
    rows = frame[(frame["run_id"] == "rtn") & (frame["task"] == "news")]
    assert set(rows["status"]) == {"missing"}
    assert rows["value"].isna().all()


def test_scores_of_another_protocol_are_never_a_baseline(
    store: Store, make_record: Record, make_score: Scored, make_items: Items, make_cell: MakeCell
) -> None:
    items = make_items()
    for run_id, protocol in (("fp", "d" * 64), ("r", "a" * 64)):
        store.save_run(make_record(run_id))
        store.save_score(make_score(run_id, items, protocol=protocol), items)
    frame = collate(store, [sweep([make_cell("wiki", "gptq", "r", tasks={"wiki": "a" * 64})])])
    row = only(frame, run_id="r", metric="perplexity")
    assert pd.isna(row["difference"])
    assert row["error"] == f"no difference: no score of full precision under {'a' * 64}, only under {'d' * 64}"
    assert row["verdict"] == "not comparable"
    full = only(frame, run_id="fp", metric="perplexity")
    assert (full["status"], full["value"] is pd.NA) == ("missing", True)


def test_other_items_under_one_protocol_have_no_difference(
    store: Store, make_record: Record, make_score: Scored, make_items: Items, make_cell: MakeCell
) -> None:
    for run_id, n in (("fp", 7), ("r", 8)):
        items = make_items(n=n)
        store.save_run(make_record(run_id))
        store.save_score(make_score(run_id, items), items)
    frame = collate(store, [sweep([make_cell("wiki", "gptq", "r", tasks={"wiki": "a" * 64})])])
    row = only(frame, run_id="r", metric="perplexity")
    assert row["error"] == "no difference from full precision: other items, or the same in other clusters"
    assert (pd.isna(row["difference"]), row["verdict"]) == (True, "not comparable")


def test_what_is_damaged_is_marked_and_the_rest_collated(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    whole = collate(store, [manifest])
    score = store.score_path("wiki-gptq", "news", PROTOCOLS["news"])
    score.write_text(score.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    totals = store.score_path("wiki-gptq", "wiki", PROTOCOLS["wiki"]).with_suffix(".totals.npy")
    totals.write_bytes(totals.read_bytes()[:-20])
    record = store.run_dir("news-gptq") / "record.json"
    record.write_text("{", encoding="utf-8")
    frame = collate(store, [manifest])
    assert len(frame) == len(whole)
    damaged = frame[frame["status"] == "damaged"]
    assert set(zip(damaged["run_id"], damaged["task"], strict=True)) == {
        ("wiki-gptq", "news"),
        ("wiki-gptq", "wiki"),
        *(("news-gptq", task) for task in PROTOCOLS),
    }
    assert damaged["value"].isna().all()
    assert damaged["error"].str.contains("Restore it, or delete").all()
    kept = ["run_id", "task", "metric", "value", "difference"]
    good = whole[["run_id", "task"]].apply(tuple, axis=1).isin([("rtn", task) for task in PROTOCOLS])
    pd.testing.assert_frame_equal(frame[good][kept], whole[good][kept])
    assert set(comparisons(store, [manifest])["run_ids"]) == {"rtn", "wiki-gptq"}


def test_collation_reads_no_items(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    before = csv_text(collate(store, [manifest]))
    for path in store.root.rglob("scores/*.parquet"):
        path.unlink()
    assert csv_text(collate(store, [manifest])) == before


def test_verifying_finds_values_and_totals_that_items_do_not_give(
    build_sweep: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, manifest = build_sweep(tmp_path)
    assert commands.collate(["demo", "--verify", f"--output-dir={store.root}"]) == 0
    assert "demo: 12 scores are those of their items" in capsys.readouterr().out
    score = store.scores("rtn")[0]
    path = store.score_path("rtn", score.task, score.protocol)
    text, totals = path.read_text(), path.with_suffix(".totals.npy")
    value = next(metric.value for metric in score.metrics if metric.name == "perplexity")
    path.write_text(text.replace(str(value), "18.0"))
    with pytest.raises(StoreError, match=r"run rtn, task news: the stored perplexity is 18\.0, but its items give 3"):
        verify_sweep(store, manifest)
    path.write_text(text)
    np.save(totals, 1.01 * np.load(totals))
    with pytest.raises(StoreError, match=r"the stored totals of perplexity over clusters are not those .* Delete that"):
        verify_sweep(store, manifest)


def test_equal_scores_give_an_equal_file(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path / "undisturbed")
    other, same = build_sweep(tmp_path / "interrupted", order=-1)
    backwards = Manifest(name="demo", overrides=[], cells=same.cells[::-1])
    write(store, "demo", collate(store, [manifest]))
    write(other, "demo", collate(other, [backwards]))
    for name in ("results.csv", "results.parquet"):
        assert (store.sweep_dir("demo") / name).read_bytes() == (other.sweep_dir("demo") / name).read_bytes()


def test_the_files_hold_the_frame(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    frame = collate(store, [manifest])
    write(store, "demo", frame)
    folder = store.sweep_dir("demo")
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "results.parquet"), frame)
    text = (folder / "results.csv").read_text()
    assert text == csv_text(frame)
    read = pd.read_csv(io.StringIO(text))
    assert list(read.columns) == list(RESULT_COLUMNS)
    assert read["value"].notna().sum() == frame["value"].notna().sum()
    assert read["value"].dropna().to_numpy() == pytest.approx(frame["value"].dropna().to_numpy(float), rel=1e-9)
    assert "nan" not in text.lower().replace("domain", "")


def test_comparisons_are_written_beside_the_results(build_sweep: Build, tmp_path: Path) -> None:
    texts = []
    for order in (1, -1):
        store, manifest = build_sweep(tmp_path / str(order), order=order)
        backwards = dataclasses.replace(manifest, cells=manifest.cells[::order])
        frame = comparisons(store, [backwards])
        write_comparisons(store, "demo", frame)
        texts.append((store.sweep_dir("demo") / "comparisons.csv").read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    read = pd.read_csv(io.StringIO(texts[0]))
    assert list(read.columns) == list(COMPARISON_COLUMNS)
    assert {str(read[name].dtype) for name in ("higher_is_better", "reliable")} == {"bool"}
    assert read["p"].to_numpy() == pytest.approx(frame["p"].to_numpy(float), rel=1e-9)
    assert set(read["kind"]) == {"full precision", "recipe", "transfer gap"}


def test_fields_are_those_that_pandas_writes() -> None:
    frame = pd.DataFrame(
        {
            "text": pd.Series(['a,"b"', None, "c\nd"], dtype="string"),
            "number": pd.Series([0.1 + 0.2, None, 1e-300], dtype="Float64"),
            "count": pd.Series([1, None, 3], dtype="Int64"),
            "yes": pd.Series([True, None, False], dtype="boolean"),
        }
    )
    plain = frame.assign(number=frame["number"].to_numpy(float, na_value=float("nan")))
    assert csv_text(frame) == plain.to_csv(index=False, float_format="%.10g", lineterminator="\n")


def test_columns_that_are_not_documented_are_refused() -> None:
    with pytest.raises(KeyError, match="colour"):
        result_frame([{"colour": 1}])  # type: ignore[typeddict-unknown-key]
    assert all(column.description for column in RESULT_COLUMNS.values())


def test_sweeps_are_collated_one_after_the_other(build_sweep: Build, tmp_path: Path) -> None:
    store, manifest = build_sweep(tmp_path)
    both = collate(store, [sweep(manifest.cells, "b"), sweep(manifest.cells, "a")])
    assert both["sweep"].unique().tolist() == ["a", "b"]
    assert len(both) == 2 * len(collate(store, [manifest]))


def test_one_bad_sweep_does_not_keep_the_others_from_their_tables(
    build_sweep: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    store, manifest = build_sweep(tmp_path)
    for name in ("a", "b", "c", "d", "e"):
        store.save_manifest(dataclasses.replace(manifest, name=name))
    path = store.manifest_path("b")
    path.write_text(path.read_text()[:-50])
    store.manifest_path("c").write_text("[" * 100_000)
    run = next(cell.run_id for cell in manifest.cells if cell.run_id is not None and not cell.data_free)
    seeded = store.load_run(run)
    assert seeded is not None
    other = dataclasses.replace(seeded, run_id="seeded", calibration={**(seeded.calibration or {}), "seed": 2**63})
    store.save_run(other)
    cells = [dataclasses.replace(cell, run_id="seeded") if cell.run_id == run else cell for cell in manifest.cells]
    store.save_manifest(dataclasses.replace(manifest, name="d", cells=cells))
    with pytest.raises(StoreError) as error:
        commands.collate(["--all", f"--output-dir={store.root}"])
    told = str(error.value).splitlines()
    assert told[0].startswith("collate: 3 of ")
    assert [line[:5] for line in told[1:]] == ["- b: ", "- c: ", "- d: "]
    assert "9223372036854775808" in told[3]
    printed = capsys.readouterr().out
    assert all(f"sweeps/{name}: results.csv" in printed for name in ("a", "e"))
    assert sweeps.status([f"--output-dir={store.root}"]) == 0
    listed = capsys.readouterr().out
    assert {line.split()[0] for line in listed.splitlines()[2:]} >= {"a", "d", "e"}
    assert "sweep b is left out" in caplog.text
