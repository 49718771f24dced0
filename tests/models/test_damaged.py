"""Model folders whose parts are damaged, or do not fit each other: named before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantbench.cells.session import Session, check_inputs
from quantbench.config.composer import compose_cells
from quantbench.core.errors import ModelError, QuantbenchError
from quantbench.models.folder import missing_part
from quantbench.models.loading import LocalModel
from quantbench.store.store import Store
from tiny import VOCABULARY, save_tiny_model, tiny_llama, tiny_tokenizer

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def local(folder: Path, **options: Any) -> LocalModel:
    return LocalModel(**({"name": "local", "path": str(folder), "dtype": "float32"} | options))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "is damaged (JSONDecodeError"),
        (b"[" * 100_000, "is damaged (RecursionError"),
        (b"[]", "is damaged (TypeError"),
        (b'{"weight_map": 3}', "is damaged (AttributeError"),
        (b'{"weight_map": {"a": 1}}', "is damaged (TypeError"),
        (b"{}", "is damaged (KeyError"),
        (b"\xff\xfe", "is damaged (UnicodeDecodeError"),
    ],
)
def test_a_damaged_index_is_named(content: bytes, told: str, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.path=") as error:
        local(folder).check_reachable()
    assert f"{INDEX} {told}" in str(error.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data[:-100], "is cut short: "),
        (lambda data: data[:100], "is cut short, or no safetensors file"),
        (lambda data: b"", "is cut short, or no safetensors file"),
        (lambda data: data[:8] + b"x" * len(data[8:]), "is no safetensors file"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\n", "is cut short, or no safetensors file"),
    ],
)
def test_a_damaged_shard_is_named(change: Callable[[bytes], bytes], told: str, tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path, max_shard_size="20KB")
    tiny_tokenizer().save_pretrained(tmp_path)
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    assert missing_part(tmp_path) is None
    shards[1].write_bytes(change(shards[1].read_bytes()))
    with pytest.raises(ModelError) as error:
        local(tmp_path).check_reachable()
    assert f"{shards[1].name} {told}" in str(error.value)


def altered(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    tensors = load_file(save_tiny_model(folder) / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    return folder


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_finite_numbers_are_refused_by_name(bad: float, tmp_path: Path) -> None:
    key = "model.layers.1.mlp.up_proj.weight"

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[key][3, 5] = bad

    with pytest.raises(ModelError, match=f"{key} has values that are NaN or infinite as float32"):
        local(altered(tmp_path, spoil)).load()


def test_so_are_those_that_the_chosen_type_cannot_hold(tmp_path: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"][0] = 1e6

    folder = altered(tmp_path, spoil)
    local(folder, dtype="bfloat16").load()
    with pytest.raises(ModelError, match=r"model\.norm\.weight has values .* as float16.*give model\.dtype=bfloat16"):
        local(folder, dtype="float16").load()


def test_weights_that_the_configuration_has_no_place_for_are_noted(tmp_path: Path) -> None:
    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.2.mlp.up_proj.weight"] = torch.zeros(48, 32)

    assert local(save_tiny_model(tmp_path / "whole")).load().notes == ()
    (note,) = local(altered(tmp_path / "more", add)).load().notes
    assert note == "1 weight of the model's files have no place in it, first model.layers.2.mlp.up_proj.weight"


def test_a_folder_without_a_tokenizer_is_told_so(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"tokenizer"):
        local(tmp_path).load_tokenizer()


def checked(folder: Path, text: Path, outputs: Path) -> None:
    """What a command checks before it runs anything."""
    line = ["model=local", f"model.path={folder}", "quantizer=rtn", "eval=local", f"eval.tasks.local.path={text}"]
    cells = compose_cells([*line, "scale.window=32", "scale.windows=2"])
    check_inputs(Session(Store(outputs)), cells)


def test_a_token_without_an_embedding_is_refused_before_anything_runs(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"{i} plain words and {i * i} of them " * 4 for i in range(20)))
    folder = save_tiny_model(tmp_path / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["plain", "nowhere"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(QuantbenchError, match=rf"local: token {VOCABULARY} \('plain'\) has no row in the embeddings"):
        checked(folder, text, tmp_path / "outputs")
    text.write_text(text.read_text().replace("plain", "other"))  # what is not read does no harm
    checked(folder, text, tmp_path / "outputs")


@pytest.mark.parametrize("config", ['{"model_type": 3}', '{"model_type": "llama", "hidden_size": "x"}', "[]", "null"])
def test_a_configuration_of_no_model_is_told_so(config: str, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    (folder / "config.json").write_text(config)
    with pytest.raises(ModelError, match=r"model local .* cannot be loaded"):
        local(folder).config()
