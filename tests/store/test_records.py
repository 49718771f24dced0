"""Records survive the way to JSON and back, and refuse what they do not know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

import quantbench
from quantbench.core.errors import StoreError
from quantbench.metrics.metric import Metric
from quantbench.store.json_record import SCHEMA_VERSION, SchemaError, check_schema, differences
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.records import LayerRecord, RunRecord, Score
from stored_sweep import origin

Record = Callable[..., RunRecord]
Scored = Callable[..., Score]
Items = Callable[..., pd.DataFrame]


def test_a_run_record_survives_json(make_record: Record) -> None:
    layer = LayerRecord(name="0.q", loss=None, bits_per_weight=4.25, seconds=0.5, fallbacks={"nearest": 1}, notes=["ä"])
    record = make_record("r", layers=[layer], error={"type": "E", "message": "m"}, notes=["n"], bits_model=5)
    text = record.to_json()
    again = RunRecord.from_json(text)
    assert again == record
    assert again.layers[0] == layer
    assert again.to_json() == text
    assert json.loads(text)["schema_version"] == 4


def test_a_score_survives_json(make_score: Scored, make_items: Items) -> None:
    score = make_score("r", make_items("wiki", kl=0.01), overlap={"share": 0.5, "ngram": 13}, reference="fp")
    assert Score.from_json(score.to_json()) == score


def test_a_manifest_survives_json_and_needs_unique_keys(make_cell: Callable[..., CellEntry]) -> None:
    cells = [make_cell("wiki", "gptq", None, tasks={"wiki": None}), make_cell("news", "gptq", "r", status="failed")]
    manifest = Manifest(name="demo", overrides=["a=1"], cells=cells, caption={"windows": 8})
    assert Manifest.from_json(manifest.to_json()) == manifest
    with pytest.raises(ValueError, match="more than once: wiki/gptq"):
        Manifest(name="demo", overrides=[], cells=[cells[0], cells[0]])


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        (SCHEMA_VERSION + 1, "a newer quantbench wrote it. Upgrade quantbench"),
        (SCHEMA_VERSION - 1, "an older quantbench wrote it. .*output_dir=.*older version.*docs/migration.md"),
        (1, "an older quantbench wrote it"),
    ],
)
def test_another_schema_is_refused_with_what_to_do(
    make_record: Record, tmp_path: Path, version: int, remedy: str
) -> None:
    data = json.loads(make_record("r").to_json()) | {"schema_version": version, "colour": 1}
    expected = rf"x\.json has result schema {version}; quantbench {quantbench.__version__} reads schema 4: {remedy}"
    with pytest.raises(SchemaError, match=expected):
        RunRecord.from_json(json.dumps(data), "x.json")
    path = tmp_path / "x.json"
    path.write_text(json.dumps(data, indent=1))
    with pytest.raises(SchemaError, match=expected):
        check_schema(path)


def test_the_schema_of_a_file_is_told_from_its_beginning(make_record: Record, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert not check_schema(path)
    path.write_text(make_record("r").to_json()[:60])
    assert check_schema(path)
    path.write_text("")
    assert not check_schema(path)


def test_a_cell_names_the_origin_of_each_of_its_tasks(make_cell: Callable[..., CellEntry]) -> None:
    with pytest.raises(ValidationError, match="each task needs its origin, and only tasks have one: wiki"):
        make_cell("wiki", "gptq", "r", tasks={"wiki": None}, task_origins={})
    with pytest.raises(ValidationError, match="data-free and names calib_origins"):
        make_cell("wiki", "rtn", "r", data_free=True, calib_origins=[origin("wiki")])


def test_an_origin_is_stored_whole_and_its_family_must_be_known(make_score: Scored, make_items: Items) -> None:
    full = origin("wiki", relatives=("wikipedia",), path="a/b", licence="CC0", size="1 MB", tried="all", note="ä")
    score = make_score("r", make_items(), origin=full)
    assert Score.from_json(score.to_json()).origin == full
    data = json.loads(score.to_json())
    for change, message in (({"family": "lmm"}, "origin.family: Input should be"), ({"langauge": "en"}, "langauge")):
        with pytest.raises(StoreError, match=message):
            Score.from_json(json.dumps(data | {"origin": data["origin"] | change}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "colour: Unexpected keyword argument"),
        ({"status": "half"}, "status: Input should be 'quantized' or 'failed'"),
        ({"run_id": None}, "run_id: Input should be a valid string"),
        ({"layers": [{"name": "a"}]}, r"layers\.0\.loss: Field required"),
        ({"effective_bits": "4"}, "effective_bits: Input should be a valid number"),
    ],
)
def test_unknown_and_wrong_fields_are_refused_by_name(
    make_record: Record, change: dict[str, Any], message: str
) -> None:
    data = json.loads(make_record("r").to_json()) | change
    with pytest.raises(StoreError, match=f"x.json is not a run record of schema 4: .*{message}"):
        RunRecord.from_json(json.dumps(data), "x.json")


@pytest.mark.parametrize("text", ["", "[1, 2", "[1]", '"text"', '{"run_id": NaN}'])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(StoreError, match=r"x\.json is "):
        RunRecord.from_json(text, "x.json")


def test_numbers_that_are_not_finite_are_never_written(
    make_record: Record, make_score: Scored, make_items: Items
) -> None:
    with pytest.raises(StoreError, match=r"cannot hold effective_bits = inf"):
        make_record("r", effective_bits=float("inf")).to_json()
    bad = Metric(name="perplexity", value=float("nan"), stderr=None, n=1, higher_is_better=False)
    with pytest.raises(StoreError, match=r"score cannot hold metrics\[0\]\.value = nan"):
        make_score("r", make_items(), metrics=[bad]).to_json()


def test_an_overlap_must_say_its_share(make_score: Scored, make_items: Items) -> None:
    with pytest.raises(ValidationError, match='overlap needs the key "share"'):
        make_score("r", make_items(), overlap={"ngram": 13})


def test_differences_leave_aside_time_and_environment(make_record: Record) -> None:
    def layers(loss: float, seconds: float) -> list[LayerRecord]:
        return [LayerRecord(name="a", loss=loss, bits_per_weight=4.0, seconds=seconds)]

    record = make_record("r", layers=layers(1.0, 0.1))
    assert differences(record, make_record("r", layers=layers(1.0, 9.9), created="later", environment={})) == []
    assert differences(record, make_record("r", layers=layers(1.0, 0.1), origins=[origin("other")])) == []
    assert differences(record, make_record("r", layers=layers(2.0, 0.1), effective_bits=4.0)) == [
        "layers",
        "effective_bits",
    ]
