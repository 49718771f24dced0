from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from quantbench.core.errors import ModelError
from quantbench.models import hub
from quantbench.models.folder import max_length
from quantbench.models.loading import HubModel, LocalModel, ModelSource
from quantbench.models.tokenizer import leading_special_tokens, tokenizer_fingerprint
from tiny import FAMILIES, POSITIONS, VOCABULARY, save_tiny_model, tiny_llama, tiny_llama_tied, tiny_tokenizer


def local(folder: Path, **options: Any) -> LocalModel:
    return LocalModel(**({"name": "local", "path": str(folder), "dtype": "float32"} | options))


# Local folders


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_comes_back_the_same(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family]()
    handle = local(save_tiny_model(tmp_path, model)).load()
    tokens = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.equal(handle.model(input_ids=tokens).logits, model(input_ids=tokens).logits)
    assert not handle.model.training
    assert not any(parameter.requires_grad for parameter in handle.model.parameters())


def test_source_of_a_local_model(tmp_path: Path) -> None:
    source = local(save_tiny_model(tmp_path), dtype="bfloat16")
    assert isinstance(source, ModelSource)
    handle = source.load()
    assert handle.model.dtype == torch.bfloat16
    assert handle.fingerprint == source.fingerprint()
    assert max_length(source.config()) == POSITIONS
    assert str(tmp_path) in source.prepare()
    tokenizer = source.load_tokenizer()
    assert tokenizer.decode(tokenizer("né").input_ids, skip_special_tokens=True) == "né"
    assert tokenizer_fingerprint(tokenizer) == tokenizer_fingerprint(handle.tokenizer)


def test_local_fingerprint_is_of_contents_not_of_place_or_notes(tmp_path: Path) -> None:
    a, b = save_tiny_model(tmp_path / "a"), save_tiny_model(tmp_path / "b")
    (b / "README.md").write_text("notes")
    assert local(a).fingerprint() == local(b).fingerprint()
    save_tiny_model(b, tiny_llama(seed=1))
    assert local(a).fingerprint() != local(b).fingerprint()


def test_local_errors_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model.path=.*nowhere: no such folder"):
        local(tmp_path / "nowhere").load()
    folder = save_tiny_model(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.safetensors")
    with pytest.raises(ModelError, match=r"neither model.safetensors nor model.safetensors.index.json"):
        local(folder).fingerprint()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "part-1", "b": "part-2"}}')
    with pytest.raises(ModelError, match=r"no part-1 \(2 of 2 weight files are missing\)"):
        local(folder).load()
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config.json. Give a folder that `save_pretrained` wrote"):
        local(folder).load_tokenizer()


def test_missing_weights_are_never_random_numbers(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are missing .* first model.layers.1.mlp.up_proj.weight"):
        local(folder).load()


def test_an_already_quantized_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"is quantized already"):
        local(folder).load()


def test_damaged_and_unknown_models_are_explained(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    (folder / "model.safetensors").write_bytes(b"\x08")
    with pytest.raises(ModelError, match=r"model\.safetensors is cut short, or no safetensors file"):
        local(folder).load()
    save_tiny_model(folder)
    (folder / "config.json").write_text('{"model_type": "nonesuch"}')
    with pytest.raises(ModelError, match=r"nonesuch"):
        local(folder).load()


def test_a_tied_model_is_complete_without_its_head(tmp_path: Path) -> None:
    handle = local(save_tiny_model(tmp_path, tiny_llama_tied())).load()
    assert handle.model.lm_head.weight is handle.model.model.embed_tokens.weight


@pytest.mark.parametrize("options", [{"dtype": "float64"}, {"path": 3}, {"revision": "main"}])
def test_bad_options_are_refused_when_built(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        local(tmp_path, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_max_length_of_every_family(family: str) -> None:
    assert max_length(FAMILIES[family]().config) == POSITIONS


# Tokenizers


def test_leading_special_tokens() -> None:
    assert leading_special_tokens(tiny_tokenizer()) == [0]
    assert leading_special_tokens(tiny_tokenizer(add_bos=False)) == []


def test_tokenizer_fingerprint_sees_bos_but_not_padding() -> None:
    tokenizer = tiny_tokenizer()
    before = tokenizer_fingerprint(tokenizer)
    assert before != tokenizer_fingerprint(tiny_tokenizer(add_bos=False))
    tokenizer.pad_token = "</s>"
    with_pad = tokenizer_fingerprint(tokenizer)
    tokenizer(["a", "bcd"], padding=True, truncation=True, max_length=3)
    assert tokenizer_fingerprint(tokenizer) == with_pad


def test_the_tiny_tokenizer_fits_the_tiny_models() -> None:
    assert len(tiny_tokenizer()) == VOCABULARY


# The hub


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and a hub where nothing listens."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return tmp_path


def hub_model(**options: Any) -> HubModel:
    return HubModel(**({"name": "opt_125m", "id": "facebook/opt-125m", "dtype": "float32"} | options))


@pytest.mark.parametrize("offline", [True, False])
def test_no_hub_is_said_in_seconds_with_what_to_do(
    offline: bool, empty_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    started = time.monotonic()
    with pytest.raises(ModelError) as caught:
        hub_model().load_tokenizer()
    assert time.monotonic() - started < 5
    for part in ("opt_125m: facebook/opt-125m", "quantbench prepare model=opt_125m", "smollm2_135m_gguf needs no hub"):
        assert part in str(caught.value)
    assert ("HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached") in str(caught.value)


def test_an_impossible_id_is_refused(empty_hub: Path) -> None:
    with pytest.raises(ModelError, match=r"'a/b/c' is not a hub id, which reads OWNER/MODEL"):
        hub_model(id="a/b/c").fingerprint()


class FakeApi:
    """A hub that answers every question with one error, or with a list of files."""

    def __init__(self, error: Exception | None, files: tuple[str, ...] = ()) -> None:
        self.error, self.files = error, files

    def __call__(self) -> FakeApi:
        return self

    def model_info(self, *_args: object, **_options: object) -> Any:
        if self.error is not None:
            raise self.error
        siblings = [type("Sibling", (), {"rfilename": name}) for name in self.files]
        return type("Info", (), {"siblings": siblings, "sha": "0" * 40})


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (GatedRepoError, "is gated: accept its licence .* HF_TOKEN"),
        (RepositoryNotFoundError, "is unknown to the hub, or private: check model.id"),
        (RevisionNotFoundError, "has no revision 'v9'"),
    ],
)
def test_what_the_hub_refuses(
    error: type[Exception], message: str, empty_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "HfApi", FakeApi(error.__new__(error)))
    with pytest.raises(ModelError, match=message):
        hub_model(revision="v9").load()


def test_a_repository_without_safetensors_is_refused(empty_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HfApi", FakeApi(None, ("config.json", "pytorch_model.bin")))
    with pytest.raises(ModelError, match=r"has no model.safetensors at revision main"):
        hub_model().load()


def test_a_cached_model_needs_no_hub_and_its_commit_is_its_fingerprint(empty_hub: Path) -> None:
    commit = "a" * 40
    repository = empty_hub / "models--owner--tiny"
    model = tiny_llama()
    save_tiny_model(repository / "snapshots" / commit, model)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    source = hub_model(id="owner/tiny")
    assert source.fingerprint() == f"owner/tiny@{commit}"
    assert max_length(source.config()) == POSITIONS
    assert torch.equal(source.load().model.lm_head.weight, model.lm_head.weight)
    assert hub_model(id="owner/tiny", revision=commit).fingerprint() == f"owner/tiny@{commit}"


def test_weights_missing_in_the_cache_come_from_the_cached_commit(
    empty_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "b" * 40
    repository = empty_hub / "models--owner--tiny"
    (save_tiny_model(repository / "snapshots" / commit) / "model.safetensors").unlink()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    asked: list[str | None] = []

    def download(_name: str, _id: str, revision: str | None, *_rest: object) -> Path:
        asked.append(revision)
        return empty_hub

    monkeypatch.setattr(hub, "download", download)
    hub.snapshot("tiny", "owner/tiny", None, weights=True, code=False)
    assert asked == [commit]
