"""Packing sweeps and merging them: what comes out is what went in, and what does not fit is refused whole."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from quantbench.config.settings import tells_apart
from quantbench.core.errors import StoreError
from quantbench.metrics.metrics import measure
from quantbench.report.collate import collate
from quantbench.store.json_record import SchemaError
from quantbench.store.manifest import Manifest
from quantbench.store.merge import merge
from quantbench.store.pack import Files, pack, read_pack, write_pack
from quantbench.store.records import Observed
from quantbench.store.store import Store
from stored_sweep import build, cell, items, record, score


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Files]:
    root = tmp_path_factory.mktemp("packed")
    store, manifest = build(root / "there")
    cells = []
    for one in manifest.cells:
        overrides = [*one.overrides, f"output_dir={root}"]
        cells.append(dataclasses.replace(one, key=" ".join(sorted(overrides)), overrides=overrides))
    manifest = dataclasses.replace(manifest, cells=cells)
    store.save_manifest(manifest)
    store.append_cost("rtn", {"environment": "e", "what": "quantize", "seconds": 2.0})
    losses = {"0.q": 0.01}
    store.save_observed(Observed(run_id="rtn", text="wiki", fingerprint="f", n_tokens=512, relative_loss=losses))
    path = root / "part.tar.xz"
    write_pack(path, pack(store, [manifest], tells_apart))
    return store, read_pack(path)


def other(tmp_path: Path) -> Store:
    return Store(tmp_path / "here")


def files_of(store: Store) -> dict[str, bytes]:
    found = (path for path in store.root.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(store.root).as_posix(): path.read_bytes() for path in found}


def test_a_merged_store_gives_the_same_results_without_items(packed: tuple[Store, Files], tmp_path: Path) -> None:
    store, files = packed
    here = other(tmp_path)
    merged = merge(here, files, "part", tells_apart)
    assert (merged.sweeps, merged.new_runs, merged.new_scores, merged.known_scores) == (("demo",), 5, 12, 0)
    assert not list(here.root.rglob("*.parquet"))
    manifests = [one.load_manifest("demo") for one in (store, here)]
    there, now = (collate(one, [manifest]) for one, manifest in zip((store, here), manifests, strict=True) if manifest)
    same = ["run_id", "task", "metric", "value", "stderr", "difference", "difference_stderr", "status", "error"]
    assert there[same].equals(now[same])
    for one in here.scores("rtn"):
        for name, totals in here.load_totals(one).items():
            assert np.array_equal(totals.totals, store.load_totals(one)[name].totals)
    assert here.load_costs("rtn") == store.load_costs("rtn")
    assert here.load_observed("rtn") == store.load_observed("rtn")


def test_what_needs_items_is_left_out_where_there_are_none(store: Store) -> None:
    for run_id, right in (("fp", 8), ("rtn", 5)):
        store.save_run(record(run_id, calibration=None))
        frame = items().assign(accuracy=[float(index < right) for index in range(8)], n_labels=4)
        store.save_score(score(run_id, frame, metrics=[measure("accuracy", frame)]), frame)
    cells = [cell("wiki", "rtn", "rtn", tasks={"wiki": "a" * 64}, data_free=True)]
    manifest = Manifest(name="demo", overrides=[], cells=cells)
    whole = collate(store, [manifest])
    assert "recovery" in set(whole["metric"])
    for path in store.root.rglob("*.parquet"):
        path.unlink()
    left = collate(store, [manifest])
    assert set(left["metric"]) == set(whole["metric"]) - {"recovery"}
    assert left.loc[left["metric"] == "agreement", "value"].tolist() == [5 / 8]


def test_merging_again_changes_nothing(packed: tuple[Store, Files], tmp_path: Path) -> None:
    _, files = packed
    here = other(tmp_path)
    merge(here, files, "part", tells_apart)
    before = files_of(here)
    merged = merge(here, files, "part", tells_apart)
    assert (merged.new_runs, merged.new_scores, merged.known_runs, merged.known_scores) == (0, 0, 5, 12)
    assert files_of(here) == before


def test_what_only_this_machine_knows_stays_behind(packed: tuple[Store, Files]) -> None:
    store, files = packed
    failed = store.load_run("reviews-gptq")
    assert failed is not None
    text = b"".join(files.values()).decode("utf-8", "replace")
    assert str(store.root.parent) not in text
    assert "traceback" not in text
    assert "ModelError" in text
    assert all(b"threads=2" not in content for content in files.values())


def test_equal_contents_give_an_equal_file(packed: tuple[Store, Files], tmp_path: Path) -> None:
    store, _ = packed
    manifest = store.load_manifest("demo")
    assert manifest is not None
    paths = [tmp_path / "a.tar.xz", tmp_path / "b.tar.xz"]
    for path in paths:
        size = write_pack(path, pack(store, [manifest], tells_apart))
        assert size == path.stat().st_size < 20_000
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_parts_of_one_sweep_are_put_together(store: Store, tmp_path: Path) -> None:
    for index, name in enumerate(("wiki", "news")):
        part = Store(tmp_path / name)
        frame = items("wiki", 0.1 * (1 + index))
        base = items("wiki", 0.0)
        base["nll"] *= 1 + 1e-7 * index  # another processor sums in another order
        for run_id, one in ((name, frame), ("fp", base)):
            part.save_run(record(run_id))
            part.save_score(score(run_id, one, environment={"id": f"machine {index}"}), one)
        tasks = {"wiki": "a" * 64}
        cells = [cell(name, "gptq", name, tasks=tasks), cell("news", "rtn", None, tasks=tasks, status="pending")]
        manifest = Manifest(name="study", overrides=[], cells=cells)
        merged = merge(store, pack(part, [manifest], tells_apart), name, tells_apart)
        assert (merged.new_scores, merged.known_scores) == (2 - index, index)
    joined = store.load_manifest("study")
    assert joined is not None
    assert [(one.key, one.run_id) for one in joined.cells] == [
        ("wiki/gptq", "wiki"),
        ("news/rtn", None),
        ("news/gptq", "news"),
    ]


def test_another_result_under_the_same_run_is_refused_and_nothing_is_changed(
    packed: tuple[Store, Files], tmp_path: Path
) -> None:
    _, files = packed
    here = other(tmp_path)
    here.save_run(record("rtn", calibration=None))
    frame = items("wiki", 0.3, 0.3)
    here.save_score(score("rtn", frame), frame)
    before = files_of(here)
    message = r"part is not merged: task wiki of run rtn is stored here with another metrics.*--output-dir"
    with pytest.raises(StoreError, match=message):
        merge(here, files, "part", tells_apart)
    assert files_of(here) == before


def test_the_same_cell_as_another_run_is_refused(packed: tuple[Store, Files], tmp_path: Path) -> None:
    _, files = packed
    here = other(tmp_path)
    overrides = ["calib=wiki", "quantizer=gptq"]
    mine = cell("wiki", "gptq", "another", key=" ".join(overrides), overrides=overrides)
    here.save_manifest(Manifest(name="demo", overrides=[], cells=[mine]))
    with pytest.raises(StoreError, match=r"cell calib=wiki quantizer=gptq: run wiki-gptq on .* run another on"):
        merge(here, files, "part", tells_apart)


def damaged(files: Files, name: str, content: bytes | None) -> Files:
    return {key: value for key, value in files.items() if key != name} | ({} if content is None else {name: content})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("runs/rtn/record.json", None, r"results of runs without a record: rtn"),
        ("runs/rtn/record.json", b"{", r"record.json is damaged or truncated"),
        ("runs/rtn/record.json", b"\xff", r"record.json is damaged"),
        ("runs/rtn/costs.jsonl", b"[1]\n", r"costs.jsonl is damaged: a line is no measurement"),
        ("runs/rtn/scores/wiki-aaaaaaaaaaaa.totals.npy", None, r"its totals are missing"),
        ("runs/rtn/scores/wiki-aaaaaaaaaaaa.totals.npy", b"no", r"its totals are damaged"),
        ("runs/../../x/record.json", b"{}", r"does not belong into a file of `quantbench pack`"),
    ],
)
def test_a_damaged_part_is_refused_whole(
    packed: tuple[Store, Files], tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    here = other(tmp_path)
    with pytest.raises(StoreError, match=message):
        merge(here, damaged(packed[1], name, content), "part", tells_apart)
    assert not here.root.exists()


def test_records_in_the_wrong_place_or_of_another_schema_are_refused(
    packed: tuple[Store, Files], tmp_path: Path
) -> None:
    _, files = packed
    here = other(tmp_path)
    swapped = damaged(files, "runs/fp/record.json", files["runs/rtn/record.json"])
    with pytest.raises(StoreError, match=r"runs/fp/record.json holds the record of runs/rtn/record.json"):
        merge(here, swapped, "part", tells_apart)
    old = json.loads(files["runs/rtn/record.json"]) | {"schema_version": 2}
    with pytest.raises(SchemaError, match=r"part, runs/rtn/record.json has result schema 2"):
        merge(here, damaged(files, "runs/rtn/record.json", json.dumps(old).encode()), "part", tells_apart)


def test_another_file_is_no_pack(tmp_path: Path) -> None:
    path = tmp_path / "part.tar.xz"
    path.write_bytes(b"nothing")
    with pytest.raises(StoreError, match=r"cannot read .*part.tar.xz as a file of `quantbench pack`"):
        read_pack(path)
    (tmp_path / "passwd").write_text("x", encoding="utf-8")
    with tarfile.open(path, "w:xz") as archive:
        archive.add(tmp_path / "passwd", "../passwd")
    with pytest.raises(StoreError, match=r"'../passwd' does not belong"):
        read_pack(path)
    (tmp_path / "pack.json").write_text('{"format": 99}', encoding="utf-8")
    with tarfile.open(path, "w:xz") as archive:
        archive.add(tmp_path / "pack.json", "pack.json")
    with pytest.raises(StoreError, match=r"has format 99"):
        read_pack(path)
    with pytest.raises(StoreError, match=r"cannot read .*missing"):
        read_pack(tmp_path / "missing")


def test_a_sweep_without_results_is_not_packed(store: Store) -> None:
    manifest = Manifest(name="new", overrides=[], cells=[cell("wiki", "gptq", None, baseline_run_id=None)])
    with pytest.raises(StoreError, match=r"nothing to pack: no run of new has a record"):
        pack(store, [manifest], tells_apart)
