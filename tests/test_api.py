"""The public API: importing it costs nothing, a recipe quantizes in memory as a cell does, stored models come back."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

import quantbench
from command import Workdir
from quantbench import api
from quantbench.config.named import named_recipe
from quantbench.core import tensors
from quantbench.core.errors import ConfigError, DataError, ModelError, QuantbenchError, StoreError
from quantbench.core.input_stats import LinearStats
from quantbench.formats.base import Format
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.walker import quantize_model
from quantbench.report.columns import RESULT_COLUMNS
from quantbench.rounding.base import Rounded
from quantbench.rounding.gptq import Gptq
from quantbench.store.store import Store
from stored_sweep import build
from tiny import POSITIONS, save_tiny_model, tiny_handle, tiny_llama, tiny_tokenizer

GROUPS_OF_16 = "quantizer.weight.group_size=16"


def token_ids(n: int = 4, length: int = 32) -> Tensor:
    return torch.randint(2, 250, (n, length), generator=torch.Generator().manual_seed(0))


def logits(model: LlamaForCausalLM) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(token_ids(1)).logits
    return found


def weights(model: LlamaForCausalLM) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def test_import_and_names_cost_neither_torch_nor_pandas() -> None:
    libraries = "{'torch', 'pandas', 'hydra', 'quantbench.api'}"
    code = f"import sys, quantbench; dir(quantbench); print({libraries} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_reading_a_sweep_does_not_import_torch(tmp_path: Path) -> None:
    build(tmp_path)
    code = f"import sys, quantbench; quantbench.read_sweep('demo', {str(tmp_path)!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_public_names_are_those_of_the_api() -> None:
    for name in quantbench.API:
        assert getattr(quantbench, name) is getattr(api, name)
        assert name in dir(quantbench)
        assert name in quantbench.__all__
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        _ = quantbench.quantise


def test_a_sweep_is_a_frame_with_all_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path)
    frame = quantbench.read_sweep("demo", tmp_path)
    assert list(frame.columns) == list(RESULT_COLUMNS)
    assert set(frame["quantizer"]) == {"gptq", "rtn", "none"}
    monkeypatch.setenv("QUANTBENCH_OUTPUTS", str(tmp_path))
    pd.testing.assert_frame_equal(quantbench.read_sweep("demo"), frame)


def test_an_unknown_sweep_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    build(tmp_path)
    with pytest.raises(StoreError, match=r"no sweep demos in .*\. Sweeps: demo$"):
        quantbench.read_sweep("demos", tmp_path)


def test_token_ids_give_what_the_pipeline_gives() -> None:
    model = tiny_llama()
    report = quantbench.quantize(model, tiny_tokenizer(), "gptq", token_ids(), [GROUPS_OF_16])
    handle = tiny_handle()
    recipe = named_recipe("gptq", [GROUPS_OF_16])
    expected = quantize_model(handle, recipe, token_ids(), torch.device("cpu"), lambda _done, _all: None)
    expected.artifact.install(handle)
    assert all(torch.equal(value, handle.model.state_dict()[name]) for name, value in weights(model).items())
    assert [layer.name for layer in report.layers] == [layer.name for layer in expected.layers]
    assert len(report.layers) == 14
    assert report.effective_bits == expected.artifact.effective_bits
    assert report.calibration_tokens == 4 * 32


def test_texts_are_cut_into_windows_of_the_length_asked_for() -> None:
    texts = ["".join(random.Random(i).choices("abcdefgh ", k=200)) for i in range(3)]
    model = tiny_llama()
    report = quantbench.quantize(model, tiny_tokenizer(), "gptq", texts, [GROUPS_OF_16], sequences=5, length=64)
    assert report.calibration_tokens == 5 * 64
    report = quantbench.quantize(tiny_llama(), tiny_tokenizer(), "gptq", texts, [GROUPS_OF_16])
    assert report.calibration_tokens == sum(map(len, texts)) // POSITIONS * POSITIONS


def test_a_recipe_without_data_needs_no_texts_and_says_so_if_it_gets_some() -> None:
    model = tiny_llama()
    before = weights(model)
    report = quantbench.quantize(model, tiny_tokenizer(), "rtn", overrides=[GROUPS_OF_16, "quantizer.weight.bits=3"])
    assert report.effective_bits == pytest.approx(3 + (16 + 3) / 16)
    assert (report.calibration_tokens, report.notes) == (0, ())
    changed = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert changed == {f"{layer.name}.weight" for layer in report.layers}
    again = quantbench.quantize(tiny_llama(), tiny_tokenizer(), "rtn", ["a text"], [GROUPS_OF_16])
    assert again.notes == ("rtn reads no calibration data: the texts given were not used",)


def test_a_quantized_cache_is_applied_and_generation_is_told_to_do_without_its_own() -> None:
    model = tiny_llama()
    before = logits(model)
    report = quantbench.quantize(model, tiny_tokenizer(), "kv4")
    assert not torch.equal(logits(model), before)
    assert model.config.use_cache is False
    assert (report.effective_bits, report.layers) == (None, ())
    assert report.kv_bits is not None
    assert any("use_cache=False" in note for note in report.notes)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, ConfigError, r"gptq reads calibration data: give texts="),
        ({"texts": "one text"}, ConfigError, r"gptq reads calibration data: give texts="),
        ({"texts": ["short"]}, DataError, r"texts: 5 tokens, 0 windows of 128: not one sequence"),
        ({"texts": torch.zeros(2, 8)}, ConfigError, r"token ids are int64 \[N, L\], not torch.float32 \[2, 8\]"),
        ({"texts": token_ids(1, 200)}, ConfigError, r"length 200: the model takes at most 128 tokens"),
        ({"recipe": "gtpq"}, ConfigError, r"quantizer=gtpq: no such choice. Did you mean 'gptq'\?"),
        ({"overrides": ["calib.n=4"]}, ConfigError, r"calib.n=4: not an option of the recipe"),
        ({"overrides": ["quantizer.weight.bits=four"]}, ConfigError, r"quantizer.weight.bits='four'"),
    ],
)
def test_what_cannot_be_done_is_refused_and_the_model_stays_as_it_was(
    given: dict[str, object], error: type[Exception], message: str
) -> None:
    model = tiny_llama()
    before = weights(model)
    with pytest.raises(error, match=message):
        quantbench.quantize(model, tiny_tokenizer(), **given)
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())


def test_a_failure_halfway_gives_the_original_weights_back(monkeypatch: pytest.MonkeyPatch) -> None:
    rounded: list[Rounded] = []

    def until_the_second_block(self: Gptq, weight: Tensor, stats: LinearStats | None, format: Format) -> Rounded:
        if len(rounded) == 10:
            raise ValueError("cannot be handled")
        rounded.append(plain(self, weight, stats, format))
        return rounded[-1]

    plain = Gptq.round
    monkeypatch.setattr(Gptq, "round", until_the_second_block)
    model = tiny_llama()
    before = weights(model)
    with pytest.raises(QuantbenchError, match=r"layers\.1\..*cannot be handled"):
        quantbench.quantize(model, tiny_tokenizer(), "gptq", token_ids(), [GROUPS_OF_16])
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())


def test_a_quantized_model_is_not_quantized_again() -> None:
    model = tiny_llama()
    quantbench.quantize(model, tiny_tokenizer(), "rtn", overrides=[GROUPS_OF_16])
    with pytest.raises(ModelError, match="quantized already"):
        quantbench.quantize(model, tiny_tokenizer(), "rtn", overrides=[GROUPS_OF_16])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    """A folder where a grid of GPTQ, quantized activations and full precision was run."""
    workdir = Workdir(tmp_path_factory.mktemp("finished"))
    done = workdir.answer("-m", "quantizer=gptq,w4a8", GROUPS_OF_16)
    assert done.returncode == 0, done.stdout + done.stderr
    return workdir


def run_of(workdir: Workdir, quantizer: str) -> str:
    (path,) = workdir.outputs.glob("sweeps/*")
    frame = quantbench.read_sweep(path.name, workdir.outputs)
    (run_id,) = set(frame[frame["quantizer"] == quantizer]["run_id"])
    return str(run_id)


@pytest.mark.parametrize("quantizer", ["gptq", "w4a8", "none"])
def test_a_stored_run_comes_back_as_it_was_evaluated(finished: Workdir, quantizer: str) -> None:
    run_id = run_of(finished, quantizer)
    model, tokenizer = quantbench.load_run(run_id[:10], finished.outputs)
    assert tokenizer("a b")["input_ids"] == tiny_tokenizer()("a b")["input_ids"]
    handle = tiny_handle()
    store = Store(finished.outputs)
    if quantizer != "none":
        stored = tensors.load(store.weights_path(run_id)), Artifact.read_spec(store.spec_path(run_id))
        Artifact.from_tensors(*stored).install(handle)
    assert isinstance(model, LlamaForCausalLM)
    assert isinstance(handle.model, LlamaForCausalLM)
    assert torch.equal(logits(model), logits(handle.model))


def test_what_is_missing_is_said(finished: Workdir, tmp_path: Path) -> None:
    run_id = run_of(finished, "gptq")
    outputs = tmp_path / "outputs"
    shutil.copytree(finished.outputs, outputs)
    with pytest.raises(StoreError, match=r"run 'zzz' in .*: no such run; \d are stored"):
        quantbench.load_run("zzz", outputs)
    with pytest.raises(ModelError, match=r"model.path=.*gone: no such folder"):
        quantbench.load_run(run_id, outputs, model_path=tmp_path / "gone")
    weights_file = outputs / "runs" / run_id / "weights.safetensors"
    weights_file.unlink()
    with pytest.raises(StoreError, match=r"kept no weights .* with save=weights"):
        quantbench.load_run(run_id, outputs)
    shutil.copy(outputs / "runs" / run_of(finished, "w4a8") / "weights.safetensors", weights_file)
    shutil.copy(outputs / "runs" / run_of(finished, "w4a8") / "weights.json", weights_file.with_suffix(".json"))
    with pytest.raises(StoreError, match="its record was made with weights"):
        quantbench.load_run(run_id, outputs)
    shutil.rmtree(outputs / "sweeps")
    with pytest.raises(StoreError, match="give model_path=FOLDER"):
        quantbench.load_run(run_id, outputs)


def test_another_model_under_the_same_path_is_refused(finished: Workdir, tmp_path: Path) -> None:
    other = save_tiny_model(tmp_path / "model", tiny_llama(seed=1))
    with pytest.raises(StoreError, match="its record was made with model"):
        quantbench.load_run(run_of(finished, "gptq"), finished.outputs, model_path=other)


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    build(tmp_path)
    with pytest.raises(StoreError, match="reviews-gptq failed and has no model: not finite"):
        quantbench.load_run("reviews", tmp_path)
