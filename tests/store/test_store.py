"""The store: what is finished stays, what is damaged is named, and two processes do not meet."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from quantbench.core.errors import StoreError
from quantbench.metrics import metrics
from quantbench.metrics.statistics import Estimate
from quantbench.store.json_record import SchemaError
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.records import RunRecord, Score
from quantbench.store.store import Store

Record = Callable[..., RunRecord]
Scored = Callable[..., Score]
Items = Callable[..., pd.DataFrame]

PROTOCOL = "a" * 64


def test_nothing_is_created_by_looking(store: Store) -> None:
    assert store.load_run("r") is None
    assert store.load_score("r", "wiki", PROTOCOL) is None
    assert store.scores("r") == []
    assert store.run_ids() == []
    assert store.load_costs("r") == []
    assert store.load_manifest("demo") is None
    assert store.sweep_names() == []
    assert store.weights_path("r").name == "weights.safetensors"
    assert not store.root.exists()


def test_a_run_and_its_scores_are_found_again(
    store: Store, make_record: Record, make_score: Scored, make_items: Items
) -> None:
    items = make_items("wiki", 0.1, kl=0.01)
    score = make_score("r", items)
    store.save_run(make_record("r"))
    store.save_score(score, items)
    again = Store(store.root)
    assert again.load_run("r") == make_record("r")
    assert again.load_score("r", "wiki", PROTOCOL) == score
    assert again.scores("r") == [score]
    assert again.run_ids() == ["r"]
    pd.testing.assert_frame_equal(again.load_items("r", "wiki", PROTOCOL), items, check_dtype=False)
    names = sorted(path.relative_to(store.root).as_posix() for path in store.root.rglob("*.*") if path.is_file())
    start = f"runs/r/scores/wiki-{'a' * 12}"
    assert names == ["runs/r/.lock", "runs/r/record.json", f"{start}.json", f"{start}.parquet", f"{start}.totals.npy"]


def test_totals_of_a_score_are_those_of_its_items_and_need_none(
    store: Store, make_score: Scored, make_items: Items
) -> None:
    items = make_items("wiki", 0.1, kl=0.01).assign(cluster=[*"bbaaddcc"])
    largest = {"kl_max": Estimate(0.5, np.full(8, np.nan))}
    names = ["perplexity", "kl", "kl_max"]
    score = make_score("r", items, metrics=[metrics.measure(name, items, largest) for name in names])
    positions = pd.DataFrame({"item": pd.Categorical(["wiki:0", "wiki:1"]), "nll": np.array([1, 2], dtype=np.float32)})
    store.save_score(score, items, estimates=largest, positions=positions)
    path = store.score_path("r", "wiki", PROTOCOL)
    path.with_suffix(".parquet").unlink()
    found = store.load_totals(score)
    assert list(found) == names
    for name in names[:2]:
        expected = metrics.totals(name, items)
        assert expected is not None
        assert found[name].totals.tolist() == expected.totals.tolist()
        assert (found[name].value, found[name].n, found[name].log_scale) == (expected.value, 8, name == "perplexity")
    assert (found["kl_max"].value, found["kl_max"].error()) == (0.5, None)
    pd.testing.assert_frame_equal(store.load_positions("r", "wiki", PROTOCOL), positions)
    totals = path.with_suffix(".totals.npy")
    for content, told in (
        (np.zeros((3, 5)), r"holds \[3, 5\] numbers, but the score has 3 metrics and 4 clusters\. Restore it, or"),
        (np.zeros((3, 4), dtype=np.int64), "it holds no float64 numbers"),
    ):
        np.save(totals, content)
        with pytest.raises(StoreError, match=told):
            store.load_totals(score)
    for damaged in (b"", b"no numbers", totals.read_bytes()[:100]):
        totals.write_bytes(damaged)
        with pytest.raises(StoreError, match=r"cannot read .*\.totals\.npy: .* delete .*\.json and \.parquet"):
            store.load_totals(score)


def test_a_finished_record_stays(store: Store, make_record: Record) -> None:
    store.save_run(make_record("r", status="failed", error={"type": "E", "message": "m"}))
    store.save_run(make_record("r"))
    store.save_run(make_record("r", created="2027-01-01T00:00:00+00:00"))
    for change, fields in (
        ({"status": "failed"}, "status"),
        ({"fingerprints": {"weights": "0"}, "kv_bits": 2.0}, "fingerprints, kv_bits"),
    ):
        with pytest.raises(
            StoreError, match=rf"record\.json is finished .* \(different: {fields}\)\. If the .* delete it"
        ):
            store.save_run(make_record("r", **change))
    assert store.load_run("r") == make_record("r")


def test_a_finished_score_stays(store: Store, make_score: Scored, make_items: Items) -> None:
    items = make_items()
    store.save_score(make_score("r", items), items)
    store.save_score(make_score("r", items, environment={"torch": "other"}), items)
    other = make_items("wiki", 0.5)
    with pytest.raises(StoreError, match=r"wiki-a+\.json is finished and is not .* result \(different: metrics\)"):
        store.save_score(make_score("r", other), other)
    pd.testing.assert_frame_equal(store.load_items("r", "wiki", PROTOCOL), items, check_dtype=False)


def test_attachments_lie_beside_their_score_and_are_no_scores(
    store: Store, make_score: Scored, make_items: Items
) -> None:
    items = make_items()
    store.save_score(make_score("r", items), items, {"lm_eval.json": '{"ä": 1}', "txt": "words"})
    folder = store.run_dir("r") / "scores"
    assert (folder / f"wiki-{'a' * 12}.lm_eval.json").read_text() == '{"ä": 1}'
    assert (folder / f"wiki-{'a' * 12}.txt").read_text() == "words"
    assert [score.task for score in store.scores("r")] == ["wiki"]
    other = make_score("s", items)
    with pytest.raises(StoreError, match=r"^attachment 'a/b' cannot name a file"):
        store.save_score(other, items, {"a/b": ""})
    assert store.load_score("s", "wiki", PROTOCOL) is None


def test_scores_come_by_task_and_protocol(store: Store, make_score: Scored, make_items: Items) -> None:
    pairs = [("a", "f" * 64), ("a-x.y", "b" * 64), ("b", "0" * 64), ("b", "1" * 64)]
    items = make_items()
    for task, protocol in reversed(pairs):
        score = dataclasses.replace(make_score("r", items), task=task, protocol=protocol)
        store.save_score(score, items)
    assert [(score.task, score.protocol) for score in store.scores("r")] == pairs


def test_items_must_fit_their_score(store: Store, make_score: Scored, make_items: Items) -> None:
    items = make_items()
    score = make_score("r", items)
    with pytest.raises(StoreError, match=r"^the items of task 'wiki' of run r: 7 rows, 7 ids; the score has 8"):
        store.save_score(score, items.iloc[1:])
    with pytest.raises(StoreError, match="8 rows, 1 ids"):
        store.save_score(score, items.assign(item="same"))
    with pytest.raises(StoreError, match=r"not finite in \['nll'\]"):
        store.save_score(score, items.assign(nll=float("nan")))
    with pytest.raises(StoreError, match=r"lack the columns \['document'\]"):
        store.save_score(score, items.drop(columns="document"))
    with pytest.raises(StoreError, match=r"lie in 1 clusters of digest \w{12}; the score has n_clusters=8, clusters="):
        store.save_score(score, items.assign(cluster="same"))
    with pytest.raises(StoreError, match=r"do not give the metrics perplexity, bits_per_byte of the score"):
        store.save_score(score, items.drop(columns="nll"))
    assert store.scores("r") == []


def test_damaged_files_are_named_and_never_redone(
    store: Store, make_record: Record, make_score: Scored, make_items: Items
) -> None:
    items = make_items()
    score = make_score("r", items)
    store.save_run(make_record("r"))
    store.save_score(score, items)
    record = store.run_dir("r") / "record.json"
    record.write_text(record.read_text()[:100])
    with pytest.raises(StoreError, match=r"record\.json is damaged or truncated: .*delete the folder .*runs/r"):
        store.load_run("r")
    with pytest.raises(StoreError, match="damaged or truncated"):
        store.save_run(make_record("r"))
    scored = store.run_dir("r") / "scores" / f"wiki-{'a' * 12}.json"
    scored.write_text("")
    remedy = r"damaged or truncated.*delete .*\.json and \.parquet"
    with pytest.raises(StoreError, match=remedy):
        store.load_score("r", "wiki", PROTOCOL)
    with pytest.raises(StoreError, match=remedy):
        store.save_score(score, items)
    scored.with_suffix(".parquet").unlink()
    with pytest.raises(StoreError, match=r"cannot read .*\.parquet.*\. Restore it, or delete .*\.json and \.parquet"):
        store.load_items("r", "wiki", PROTOCOL)


OLD = Path(__file__).parent / "schema_2"


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_store_of_an_older_schema_is_refused_untouched(tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    shutil.copytree(OLD, root)
    before = contents(root)
    with pytest.raises(SchemaError, match=r"manifest\.json has result schema 2; .*docs/migration\.md"):
        Store(root)
    shutil.rmtree(root / "sweeps")
    with pytest.raises(SchemaError, match=r"record\.json has result schema 2; .*output_dir=ANOTHER_FOLDER"):
        Store(root)
    assert contents(root).items() <= before.items()


def test_a_file_of_another_schema_in_a_store_of_this_one_is_neither_read_nor_replaced(
    store: Store, make_record: Record, make_score: Scored, make_items: Items, make_cell: Callable[..., CellEntry]
) -> None:
    shutil.copytree(OLD, store.root)
    before = contents(store.root)
    items = make_items()
    writes: list[Callable[[], object]] = [
        lambda: store.load_run("r"),
        lambda: store.load_score("r", "wiki", PROTOCOL),
        lambda: store.scores("r"),
        lambda: store.load_manifest("demo"),
        lambda: store.save_run(make_record("r")),
        lambda: store.save_score(make_score("r", items), items),
        lambda: store.save_manifest(Manifest(name="demo", overrides=[], cells=[make_cell("wiki", "gptq", "r")])),
    ]
    for write in writes:
        with pytest.raises(SchemaError, match="has result schema 2"):
            write()
    assert contents(store.root) == before | {"runs/r/.lock": b""}


def test_a_file_that_belongs_elsewhere_is_noticed(
    store: Store, make_record: Record, make_score: Scored, make_items: Items
) -> None:
    items = make_items()
    store.save_run(make_record("r"))
    store.save_score(make_score("r", items), items)
    (store.root / "runs" / "r").rename(store.root / "runs" / "s")
    with pytest.raises(StoreError, match="holds the record of run 'r'"):
        store.load_run("s")
    with pytest.raises(StoreError, match="holds another score than s / wiki"):
        store.load_score("s", "wiki", PROTOCOL)
    other = "a" * 12 + "b" * 52
    (store.root / "runs" / "s").rename(store.root / "runs" / "r")
    with pytest.raises(StoreError, match="holds another score"):
        store.load_score("r", "wiki", other)


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a b"])
def test_only_plain_names_become_folders(store: Store, name: str) -> None:
    for folder in (store.run_dir, store.sweep_dir):
        with pytest.raises(StoreError, match="cannot name a file"):
            folder(name)
    with pytest.raises(StoreError, match="cannot name a file"):
        store.load_score("r", name, PROTOCOL)


def test_costs_are_only_ever_added(store: Store) -> None:
    with store.lock("r"):
        store.append_cost("r", {"environment": "laptop", "stage": "quantize", "seconds": 1.5})
    store.append_cost("r", {"environment": "laptop", "stage": "quantize", "seconds": 1.4})
    assert [cost["seconds"] for cost in store.load_costs("r")] == [1.5, 1.4]
    with pytest.raises(ValueError, match='needs the key "environment"'):
        store.append_cost("r", {"seconds": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.append_cost("r", {"environment": "laptop", "seconds": float("nan")})
    store.append_cost("r", {"environment": "Büro"})
    path = store.run_dir("r") / "costs.jsonl"
    assert path.read_text(encoding="utf-8").splitlines()[2] == '{"environment": "Büro"}'


@pytest.mark.parametrize(("content", "told"), [(b'{"seconds": 1', "is damaged"), (b"\xff", "cannot read")])
def test_costs_that_are_damaged_are_named_with_what_to_do(store: Store, content: bytes, told: str) -> None:
    store.append_cost("r", {"environment": "laptop"})
    path = store.run_dir("r") / "costs.jsonl"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=rf"{told}.*\. Repair or delete that file: it holds measured costs only"):
        store.append_cost("r", {"environment": "laptop"})
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"{", b"\xff"])
def test_a_damaged_manifest_is_named_with_what_to_do(store: Store, content: bytes) -> None:
    (store.sweep_dir("demo") / "manifest.json").write_bytes(content)
    with pytest.raises(
        StoreError, match=r"manifest\.json.*\. Delete it and run the sweep again: finished runs are kept"
    ):
        store.load_manifest("demo")


def test_a_manifest_is_replaced_as_the_sweep_goes_on(store: Store, make_cell: Callable[..., CellEntry]) -> None:
    for status in ("pending", "done"):
        cells = [make_cell("wiki", "gptq", "r", status=status)]
        store.save_manifest(Manifest(name="demo", overrides=[], cells=cells))
    loaded = store.load_manifest("demo")
    assert loaded is not None
    assert loaded.cells[0].status == "done"
    assert store.sweep_names() == ["demo"]


def test_a_cell_is_done_when_it_and_its_baseline_are_scored(
    store: Store, make_score: Scored, make_items: Items, make_cell: Callable[..., CellEntry]
) -> None:
    items = make_items()
    cell = make_cell("wiki", "gptq", "r", tasks={"wiki": PROTOCOL}, status="pending")
    for run_id, done in (("r", False), ("fp", True)):
        assert not store.is_done(cell)
        store.save_score(make_score(run_id, items), items)
        assert store.is_done(cell) == done
    for change in ({"run_id": None}, {"baseline_run_id": None}, {"tasks": {"wiki": None}}):
        assert not store.is_done(dataclasses.replace(cell, **change))


def test_references_are_kept_by_run_and_protocol(store: Store) -> None:
    path = store.reference_path("fp", "wiki", PROTOCOL)
    assert path == store.root / "references" / f"fp-wiki-{'a' * 12}.safetensors"
    assert path.parent.is_dir()


def test_leftovers_of_a_killed_process_go_when_the_run_is_locked(store: Store) -> None:
    with store.lock("r") as folder:
        (folder / "scores").mkdir()
    leftovers = [folder / ".weights.safetensors.0123.tmp", folder / "scores" / ".wiki.json.0123.tmp"]
    for leftover in leftovers:
        leftover.write_text("half")
    with store.lock("r"):
        assert not any(leftover.exists() for leftover in leftovers)
        leftovers[0].write_text("being written")
        with store.lock("r"):
            assert leftovers[0].exists()


def test_a_second_process_waits_and_says_for_what(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    code = """
        import sys, time
        from pathlib import Path
        from quantbench.store.store import Store
        with Store(Path(sys.argv[1])).lock("r") as folder:
            print("locked", flush=True)
            time.sleep(0.5)
            (folder / "finished").touch()
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(code), str(store.root)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started = time.monotonic()
        with caplog.at_level(logging.WARNING), store.lock("r") as folder:
            assert (folder / "finished").exists()
            assert time.monotonic() - started > 0.2
    assert "run r is in use by another process: waiting" in caplog.text


def test_a_lock_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file in the way")
    with pytest.raises(StoreError, match=r"cannot write .*runs/r"), Store(tmp_path).lock("r"):
        pass
