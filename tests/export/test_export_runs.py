"""Stored runs as folders: written as a whole, read again, compared, described; or refused."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from command import Workdir
from exported import GROUPS, subject_of, tokenizer_with_a_merge, wide_llama
from quantbench.core.errors import ConfigError, ModelError, QuantbenchError, StoreError
from quantbench.export import proof, reader
from quantbench.export.exporter import LAYOUTS, Exported, Options, check_equivalent, export
from quantbench.export.subject import Subject, Written
from quantbench.pipeline.artifact import StoredBits
from quantbench.store.store import Store
from tiny import save_tiny_model

RECIPES = "quantizer=rtn,awq,mxfp4,nvfp4,smoothquant"
KEPT = "model.layers.1.self_attn.o_proj"
QUICK = Options(windows=2, length=32)


@dataclass(frozen=True)
class Runs:
    """A store, and its run of each recipe."""

    store: Store
    ids: dict[str, str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    workdir = Workdir(tmp_path_factory.mktemp("export"))
    save_tiny_model(workdir.folder / "model", wide_llama())
    tokenizer_with_a_merge().save_pretrained(workdir.folder / "model")
    done = workdir.answer("-m", RECIPES, f"quantizer.policy.keep=[{KEPT}]")
    assert done.returncode == 0, done.stderr
    store = Store(workdir.outputs)
    found = {
        record.choices["quantizer"]: record.run_id for run_id in store.run_ids() if (record := store.load_run(run_id))
    }
    return Runs(store, found)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader runs here: importing transformers anew takes seconds, and one test does."""

    def read(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
        try:
            reader.main(Path(command[2]), Path(command[3]))
        except Exception as error:
            return subprocess.CompletedProcess(command, 1, "", f"{type(error).__name__}: {error}")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("quantbench.export.proof.subprocess.run", read)


def exported(runs: Runs, recipe: str, to: str, out: Path, options: Options = QUICK) -> Exported:
    return export(runs.store, runs.ids[recipe], to, out, options)


def test_a_process_of_its_own_reads_the_very_logits(runs: Runs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = exported(runs, "rtn", "dense", out)
    assert done.proof is not None
    assert (done.proof.kl, done.proof.largest_logit_difference, done.proof.equivalent) == (0, 0, True)
    assert (done.proof.windows, done.proof.tokens, done.proof.text) == (2, 64, "local")
    stored = json.loads((out / "proof.json").read_text())
    assert stored["kl"] == 0
    lines = (runs.store.run_dir(done.run_id) / "exports.jsonl").read_text().splitlines()
    assert json.loads(lines[-1]) == {**stored, "folder": str(out)}
    assert runs.store.load_exports(done.run_id)[-1]["folder"] == str(out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")  # says that `dequantize` is heeded
@pytest.mark.parametrize(
    ("recipe", "to", "kl", "identical"),
    [
        ("rtn", "compressed-tensors", 0, 13),
        ("awq", "compressed-tensors", 0, 13),
        ("mxfp4", "compressed-tensors", 0, 13),
        ("nvfp4", "compressed-tensors", 1e-4, None),
        ("smoothquant", "compressed-tensors", 1e-3, 13),
        ("rtn", "gguf", 0, 13),
        ("mxfp4", "gguf", 0, 13),
        ("awq", "dense", 0, 13),
    ],
)
def test_transformers_reads_the_run(
    runs: Runs, recipe: str, to: str, kl: float, identical: int | None, tmp_path: Path
) -> None:
    if to == "compressed-tensors":
        pytest.importorskip(
            "compressed_tensors", reason="compressed-tensors is not installed: pip install -e '.[export]'"
        )
    done = exported(runs, recipe, to, tmp_path / "out")
    assert done.proof is not None
    assert done.proof.kl <= kl
    assert done.proof.equivalent
    if identical is not None:
        assert (done.proof.weights_compared, done.proof.weights_identical) == (identical, identical)


def test_what_is_not_quantized_is_named_and_what_was_folded_is_there(runs: Runs, tmp_path: Path) -> None:
    unproved = replace(QUICK, prove=False)
    exported(runs, "rtn", "compressed-tensors", tmp_path / "rtn", unproved)
    config = json.loads((tmp_path / "rtn/config.json").read_text())["quantization_config"]
    assert config["ignore"] == [KEPT, "lm_head"]
    exported(runs, "awq", "compressed-tensors", tmp_path / "awq", unproved)
    plain, folded = (load_file(tmp_path / name / "model.safetensors") for name in ("rtn", "awq"))
    norm = "model.layers.0.input_layernorm.weight"
    assert not torch.equal(plain[norm], folded[norm])
    assert "model.layers.0.self_attn.q_proj.weight" not in folded
    assert f"{KEPT}.weight" in plain
    card = (tmp_path / "rtn/README.md").read_text()
    assert "**Not proved**" in card
    assert json.loads((tmp_path / "rtn/proof.json").read_text())["proved"] is False


@pytest.mark.usefixtures("in_this_process")
def test_an_export_that_is_not_its_run_is_marked_and_fails(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, right = tmp_path / "out", LAYOUTS["dense"].write

    def wrong(subject: Subject, folder: Path) -> Written:
        written = right(subject, folder)
        path = folder / "model.safetensors"
        tensors = load_file(path)
        tensors["model.layers.0.mlp.up_proj.weight"] *= 1.5
        save_file(tensors, path, {"format": "pt"})
        return written

    monkeypatch.setattr(LAYOUTS["dense"], "write", wrong)
    done = exported(runs, "rtn", "dense", out)
    assert done.proof is not None
    assert not done.proof.equivalent
    assert (done.proof.weights_compared, done.proof.weights_identical) == (13, 12)
    with pytest.raises(QuantbenchError, match=r"marked as not equivalent: KL\(export \|\| run\) is .* allows 1e-06"):
        check_equivalent(done, "dense", out)
    assert "**Not equivalent**" in (out / "README.md").read_text()
    assert json.loads((out / "proof.json").read_text())["equivalent"] is False


def test_the_card_has_the_hubs_metadata_the_scores_and_the_way_back(runs: Runs, tmp_path: Path) -> None:
    out = tmp_path / "card"
    exported(runs, "awq", "dense", out, replace(QUICK, prove=False))
    _, front, body = (out / "README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["tags"] == ["quantbench", "dense", "awq"]
    assert (metadata["license"], metadata["license_name"]) == ("other", "not known")
    results = metadata["model-index"][0]["results"]
    (score,) = runs.store.scores(runs.ids["awq"])
    assert results[0]["dataset"] == {"name": "local", "type": "local", "args": {"protocol": score.protocol}}
    values = {one["type"]: one["value"] for one in results[0]["metrics"]}
    assert values == {metric.name: metric.value for metric in score.metrics}
    assert "| local | in-distribution | perplexity |" in body
    assert f"quantbench export {runs.ids['awq']} --to dense card" in body
    assert "quantizer=awq" in body
    assert "Calibrated on local" in body


def refusal(runs: Runs, out: Path, to: str = "dense", recipe: str = "rtn", options: Options = QUICK) -> str:
    """What is said, with nothing left behind."""
    with pytest.raises(QuantbenchError) as caught:
        exported(runs, recipe, to, out, options)
    assert not out.parent.exists() or not [path for path in out.parent.iterdir() if path.name != "there"]
    return str(caught.value)


def test_bad_input_is_refused_and_nothing_is_left(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    assert "is there already, and an export replaces nothing" in refusal(runs, tmp_path / "there")
    assert "no such format. Formats: dense, compressed-tensors" in refusal(runs, tmp_path / "a", to="onnx")
    with pytest.raises(StoreError, match=r"no such run; .* stored\. Elsewhere: --output-dir FOLDER"):
        export(runs.store, "zz", "dense", tmp_path / "a", QUICK)
    said = refusal(runs, tmp_path / "a", recipe="smoothquant")
    assert "cannot be held exactly by --to dense:\n- model.layers.0.self_attn.q_proj and 12 others: its inputs" in said
    assert "cannot read" in refusal(runs, tmp_path / "a", options=replace(QUICK, text=tmp_path / "gone.txt"))
    monkeypatch.setattr("quantbench.export.proof.importlib.util.find_spec", lambda name: None)
    said = refusal(runs, tmp_path / "a", to="compressed-tensors")
    assert "compressed-tensors, with which transformers reads it for the proof, is not installed here" in said
    assert 'pip install "quantbench[export]"' in said
    assert "--engine-python" in refusal(runs, tmp_path / "a", to="awq")
    other = replace(QUICK, python=tmp_path / "there" / "python")
    assert "no Python interpreter that runs" in refusal(runs, tmp_path / "a", options=other)


def test_a_full_disk_leaves_nothing(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("quantbench.export.saving.save_torch_state_dict", full)
    unproved = replace(QUICK, prove=False)
    said = refusal(runs, tmp_path / "made" / "out", to="compressed-tensors", options=unproved)
    assert "No space left on device" in said
    assert "free some space" in said


def test_an_export_that_cannot_be_read_is_not_kept(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_this_process: None
) -> None:
    monkeypatch.setattr(LAYOUTS["dense"], "write", lambda subject, folder: Written("exact"))
    with pytest.raises(ModelError, match="transformers cannot read it: FileNotFoundError"):
        exported(runs, "rtn", "dense", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_run_without_stored_weights_says_what_to_do(runs: Runs, tmp_path: Path) -> None:
    store = Store(shutil.copytree(runs.store.root, tmp_path / "outputs"))
    store.weights_path(runs.ids["rtn"]).unlink()
    with pytest.raises(StoreError, match=r"kept no weights \(save=none.*again, with save=weights"):
        export(store, runs.ids["rtn"], "dense", tmp_path / "out", QUICK)


def test_a_text_of_ones_own_serves_where_no_sweep_knows_the_tests(
    runs: Runs, tmp_path: Path, in_this_process: None
) -> None:
    store = Store(shutil.copytree(runs.store.root, tmp_path / "outputs"))
    shutil.rmtree(tmp_path / "outputs/sweeps")
    model = runs.store.root.parent / "model"
    moved = replace(QUICK, model_path=model)
    with pytest.raises(StoreError, match="give --model-path FOLDER"):
        export(store, runs.ids["rtn"], "dense", tmp_path / "out", QUICK)
    with pytest.raises(StoreError, match=r"no sweep in the store has it.*--text FILE"):
        export(store, runs.ids["rtn"], "dense", tmp_path / "out", moved)
    text = tmp_path / "text.txt"
    text.write_text("some text to compare on, long enough for two windows of tokens")
    done = export(store, runs.ids["rtn"], "dense", tmp_path / "out", replace(moved, text=text))
    assert done.proof is not None
    assert (done.proof.windows, done.proof.equivalent) == (2, True)


@pytest.mark.parametrize(
    ("recipe", "to", "reason"),
    [
        (["quarot", "quantizer.activation=null"], "compressed-tensors", "an online rotation of its input"),
        (["kv8"], "dense", "a quantized key-value cache"),
        (["kv8"], "gguf", "a quantized key-value cache"),
        (["spqr"], "gptq", r"kept beside the codes \(Outliers\)"),
        (["gptq", GROUPS, "quantizer.policy.keep=[down_proj]"], "gptq", "all linear layers of the blocks quantized"),
        (["rtn", GROUPS, "quantizer.weight.bits=6"], "gptq", "6 bits, and the format has 2, 3, 4, 8"),
        (["rtn", GROUPS, "quantizer.weight.bits=3"], "awq", "3 bits, and the format has 4"),
        (["rtn", GROUPS, "quantizer.weight.bits=8"], "gguf", "8 bits and zero points"),
        (["rtn", GROUPS, "quantizer.weight.scale_dtype=float32"], "awq", "no float16 numbers"),
        (["rtn", "quantizer.weight.group_size=48"], "gguf", "groups of 48 columns in a width of 64"),
        (["nvfp4"], "gguf", "Nvfp4Format is no grid of integers"),
        (["mxfp4_w4a4"], "compressed-tensors", "a rule of their own"),
        (["rtn", GROUPS, "quantizer.policy.embeddings=true"], "compressed-tensors", "Embedding is quantized"),
        (["none"], "gptq", "no weight is quantized"),
    ],
)
def test_a_format_that_cannot_hold_a_recipe_says_why(recipe: list[str], to: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"run run cannot be held exactly by --to {to}:\n- .*{reason}"):
        LAYOUTS[to].check(subject_of(*recipe))


@pytest.mark.parametrize("to", sorted(LAYOUTS.keys() - {"dense"}))
@pytest.mark.parametrize("recipe", ["rtn", "smoothquant"])
def test_a_run_of_a_checkpoint_is_not_packed_a_second_time(to: str, recipe: str) -> None:
    """Nor where it quantizes inputs, which a layout may hold."""
    subject = subject_of(recipe)
    subject.artifact.stored["model.layers.0.mlp.up_proj.weight"] = StoredBits(4, True)
    subject.artifact.weights.clear()
    with pytest.raises(ConfigError, match="its weights were read from a checkpoint"):
        LAYOUTS[to].check(subject)


def test_a_head_that_was_tied_is_written_once_or_apart(tmp_path: Path) -> None:
    for overrides, keys in ((["rtn", GROUPS], 0), (["rtn", GROUPS, "quantizer.policy.lm_head=true"], 4)):
        subject = subject_of(*overrides, model=wide_llama(tied=True))
        folder = tmp_path / str(keys)
        folder.mkdir()
        LAYOUTS["compressed-tensors"].check(subject)
        LAYOUTS["compressed-tensors"].write(subject, folder)
        tensors = load_file(folder / "model.safetensors")
        assert len([name for name in tensors if name.startswith("lm_head.")]) == keys
        assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] == (keys == 0)
        assert "model.embed_tokens.weight" in tensors


def test_the_command_says_what_was_found_and_what_would_be_uploaded(
    runs: Runs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_this_process: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from quantbench.cli.exporting import FORMATS
    from quantbench.cli.exporting import export as command

    assert list(FORMATS) == list(LAYOUTS)
    given = [runs.ids["rtn"], "--to", "gguf", str(tmp_path / "out"), "--output-dir", str(runs.store.root)]
    assert command([*given, "--push", "me/model", "--dry-run", "--windows", "1"]) == 0
    printed = capsys.readouterr().out
    assert "13 layers as Q5_0" in printed
    assert "KL(export || run)          0 nats per token (allowed 1e-06)" in printed
    assert "Equivalent." in printed
    assert "Would upload to me/model (private if it is new):\n  README.md" in printed
    assert "  model.gguf" in printed
    for wrong, said in (
        (["--to", "onnx"], "no such format. Formats: dense"),
        (["--windows", "0"], "--windows 0: give 1 or more"),
        (["--dry-run"], "about --push OWNER/NAME"),
        (["--push", "nowhere"], "give OWNER/NAME"),
    ):
        with pytest.raises(ConfigError, match=said):
            command([*given[:3], str(tmp_path / "b"), *given[4:], *wrong])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_another_interpreter_may_read_it(runs: Runs) -> None:
    proof.check_engine("dense", Path(sys.executable))
    with pytest.raises(ConfigError, match=f"gptqmodel.* not installed in {sys.executable}"):
        proof.check_engine("gptq", Path(sys.executable))
