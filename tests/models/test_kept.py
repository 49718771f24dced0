"""What a model's folder says is found once; later it is read, and is the same. A changed folder is looked at anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from quantbench.core.errors import ModelError
from quantbench.models.folder import max_length
from quantbench.models.loading import HubModel, LocalModel
from quantbench.models.outline import Outline, outline, position_limit
from quantbench.models.pretrained import load_tokenizer
from quantbench.models.skeleton import embedding_rows, layer_names, skeleton
from quantbench.models.structure import find_blocks
from quantbench.models.tokenizer import tokenizer_fingerprint
from tiny import FAMILIES, save_tiny_model


@pytest.fixture(autouse=True)
def findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "findings"


def local(folder: Path) -> LocalModel:
    return LocalModel(name="local", path=folder, dtype="float32")


def refused(*_args: object, **_options: object) -> Any:
    raise AssertionError("looked again")


def not_chosen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refused)


def same(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    text = "Ein Wört, 三 words.\n  \x00 <s> end</s>"
    return (
        type(one) is type(other)
        and tokenizer_fingerprint(one) == tokenizer_fingerprint(other)
        and one(text)["input_ids"] == other(text)["input_ids"]
        and one.chat_template == other.chat_template
        and one.model_max_length == other.model_max_length
        and one.init_kwargs == other.init_kwargs
    )


def test_a_known_tokenizer_is_the_one_that_transformers_chooses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_model(tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}", encoding="utf-8")
    chosen = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert same(load_tokenizer(folder, "tiny"), chosen)
    not_chosen_again(monkeypatch)
    again = load_tokenizer(folder, "tiny")
    assert same(again, chosen)
    assert again.chat_template == "{{ messages[0].content }}"
    again.save_pretrained(tmp_path / "again")
    chosen.save_pretrained(tmp_path / "chosen")
    for path in (tmp_path / "chosen").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_tokenizer_whose_files_changed_is_chosen_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny_model(tmp_path / "model")
    load_tokenizer(folder, "tiny")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 77}), encoding="utf-8")
    assert load_tokenizer(folder, "tiny").model_max_length == 77
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 78}), encoding="utf-8")
    not_chosen_again(monkeypatch)
    with pytest.raises(ModelError, match="looked again"):
        load_tokenizer(folder, "tiny")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_outline_says_what_the_model_says(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = local(save_tiny_model(tmp_path / "model", FAMILIES[family]()))
    found, model = outline(source), skeleton(source)
    assert found.limit == max_length(model.config) == position_limit(source)
    assert found.rows == embedding_rows(model)
    assert found.width == model.config.get_text_config().hidden_size
    assert found.quantizable().layers == tuple(layer_names(model))
    assert found.parameters == sum(parameter.numel() for parameter in find_blocks(model)[1].parameters())
    monkeypatch.setattr("quantbench.models.skeleton.skeleton", refused)
    assert outline(source) == found


def test_a_changed_configuration_has_an_outline_of_its_own(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model")
    before = outline(local(folder))
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"num_hidden_layers": 1, "max_position_embeddings": 33}), encoding="utf-8")
    after = outline(local(folder))
    assert (after.limit, after.rows) == (33, before.rows)
    assert after.layers == tuple(name for name in before.layers if ".layers.0." in name)
    assert before.layers != after.layers


def test_a_structure_that_cannot_be_quantized_is_refused_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = local(save_tiny_model(tmp_path / "model"))

    def two_lists(_model: object) -> Any:
        raise ModelError("2 lists of blocks found")

    monkeypatch.setattr("quantbench.models.skeleton.find_blocks", two_lists)
    for _ in range(2):
        found = outline(source)
        assert found.rows > 0
        with pytest.raises(ModelError, match="2 lists of blocks found"):
            found.quantizable()
        monkeypatch.setattr("quantbench.models.skeleton.skeleton", refused)


def test_a_configuration_of_no_language_model_is_not_kept(tmp_path: Path, findings: Path) -> None:
    folder = save_tiny_model(tmp_path / "model")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": -1}), encoding="utf-8")
    for _ in range(2):
        with pytest.raises(ModelError):
            outline(local(folder))
    assert not list(findings.glob("Outline*"))


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"limit": "many", "rows": 1, "width": 1}', '{"rows": 1}'])
def test_a_damaged_finding_is_found_again(damage: str, tmp_path: Path, findings: Path) -> None:
    source = local(save_tiny_model(tmp_path / "model"))
    before = outline(source)
    (path,) = findings.glob("Outline*")
    good = path.read_bytes()
    path.write_text(damage, encoding="utf-8")
    assert outline(source) == before
    assert path.read_bytes() == good


def test_what_cannot_be_kept_is_found_each_time(tmp_path: Path, findings: Path) -> None:
    source = local(save_tiny_model(tmp_path / "model"))
    findings.parent.write_text("a file where the folder would be", encoding="utf-8")
    assert outline(source) == outline(source) != Outline(limit=1, rows=1, width=1)


def test_code_that_a_model_brings_along_is_asked_each_time(
    tmp_path: Path, findings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_model(tmp_path / "model")
    source = HubModel(name="own", id="a/b", dtype="float32", trust_remote_code=True)
    monkeypatch.setattr(HubModel, "definition", lambda _self: folder)
    assert outline(source).layers
    assert source.load_tokenizer().is_fast
    assert not findings.exists()
    monkeypatch.setattr("quantbench.models.skeleton.skeleton", refused)
    assert position_limit(source) == max_length(source.config())
    with pytest.raises(AssertionError, match="looked again"):
        outline(source)
