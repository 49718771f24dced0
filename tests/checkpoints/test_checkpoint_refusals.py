"""What is no checkpoint of the base model, or cannot be read, is refused with what is wrong with it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from checkpoint_files import (
    AWQ_CONFIG,
    GPTQ_CONFIG,
    INT8_CONFIG,
    awq,
    gptq,
    int8,
    scheme,
    with_config,
    write_checkpoint,
)
from quantbench.checkpoints.read import check_checkpoint, read_checkpoint
from quantbench.checkpoints.recipe import CheckpointRecipe
from quantbench.core.errors import ModelError
from quantbench.models import hub
from tiny import tiny, tiny_handle, tiny_llama, tiny_mixtral, tiny_tokenizer

LAYER = "model.layers.0.self_attn.q_proj"
TOKENS = tiny_tokenizer().get_vocab()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "made", tiny_llama(), gptq(), GPTQ_CONFIG)


def refused(folder: Path, message: str, model: Any = None, tokens: dict[str, int] = TOKENS, **options: Any) -> None:
    """Refused by its headers, before any weight is read."""
    recipe = CheckpointRecipe(path=folder, **options)

    def check() -> None:
        recipe.check_files()
        check_checkpoint(recipe, tiny_llama() if model is None else model, tokens)

    with pytest.raises(ModelError, match=message):
        check()


def refused_by_weights(folder: Path, message: str) -> None:
    recipe = CheckpointRecipe(path=folder)
    check_checkpoint(recipe, tiny_llama(), TOKENS)
    with pytest.raises(ModelError, match=message):
        read_checkpoint(tiny_handle(), recipe, lambda _done, _total: None)


def edit(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_nothing_there(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "quantizer.path=.*nothing: no such file or folder, and no id of the hub")
    refused(tmp_path, "no config.json")


def test_repositories_of_the_hub(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = CheckpointRecipe(path=Path("owner/name"))
    monkeypatch.setattr(hub, "cached_snapshot", lambda _name, _id, _revision: made)
    assert recipe.files().path == made

    class Unreachable:
        def model_info(self, *_: Any, **__: Any) -> None:
            raise OSError("no network")

    monkeypatch.setattr(hub, "cached_snapshot", lambda _name, _id, _revision: None)
    monkeypatch.setattr(hub, "HfApi", Unreachable)
    refused(Path("owner/name"), "quantizer.path=owner/name: .* nor to be had from the hub: OSError: no network")


def test_files_of_other_kinds(tmp_path: Path, made: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"pickled")
    refused(tmp_path / "weights.pt", "weights.pt is pickled: reading it can run code")
    (tmp_path / "weights.onnx").write_bytes(b"other")
    refused(tmp_path / "weights.onnx", "expected a folder with config.json and .safetensors, or a .gguf file")
    (tmp_path / "weights.gguf").write_bytes(b"other")
    refused(tmp_path / "weights.gguf", "is no GGUF file")
    (made / "model.safetensors").rename(made / "pytorch_model.bin")
    refused(made, "pytorch_model.bin is pickled")


def test_files_that_are_cut_short(tmp_path: Path, made: Path) -> None:
    content = (made / "model.safetensors").read_bytes()
    (made / "model.safetensors").write_bytes(content[:-10])
    refused(made, f"model.safetensors is cut short: {len(content) - 10} of {len(content)} bytes")
    (made / "model.safetensors").write_bytes(content[:100])
    refused(made, "is cut short, or no safetensors file")
    (made / "config.json").write_text("{")
    refused(made, "config.json cannot be read as JSON")


def test_an_incomplete_set_of_files(made: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (made / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(made, "no model-2.safetensors, which model.safetensors.index.json names")
    (made / "model.safetensors.index.json").unlink()
    (made / "other.safetensors").write_bytes((made / "model.safetensors").read_bytes())
    refused(made, "2 safetensors files and 0 .safetensors.index.json: which belong together is not known")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "no quantization_config: nothing says that the checkpoint is quantized"),
        ({"quant_method": "torchao"}, "quant_method='torchao', but the metadata of the safetensors files describes no"),
        ({"quant_method": "aqlm"}, "quant_method='aqlm' is not read. quantbench reads compressed-tensors, gptq"),
        ({**GPTQ_CONFIG, "bits": 5}, "quantization_config.bits=5: quantbench reads one of 2, 3, 4, 8"),
        ({**GPTQ_CONFIG, "bits": 8}, r"qweight has shape \[4, 32\], not \[8, 32\], as GPTQ version 1, 8 bits"),
        ({**GPTQ_CONFIG, "group_size": 8}, r"qzeros has shape \[2, 4\], not \[4, 4\]"),
        ({**GPTQ_CONFIG, "checkpoint_format": "marlin"}, "checkpoint_format='marlin': quantbench reads gptq, gptq_v2"),
        ({**AWQ_CONFIG, "version": "gemv"}, "version='gemv': quantbench reads gemm"),
        (AWQ_CONFIG, r"qweight has shape \[4, 32\], not \[32, 4\]"),
        (INT8_CONFIG, "has no weight_scale, but is in a group of quantization_config.config_groups"),
        ({"quant_method": "fp8"}, "tensors of the checkpoint have no place|nothing for"),
        ({"quant_method": "bitsandbytes"}, "expected one of load_in_4bit and load_in_8bit"),
    ],
)
def test_a_configuration_that_contradicts_the_tensors(made: Path, config: Any, message: str) -> None:
    refused(with_config(made, quantization_config=config), message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme=.*: a quantized key-value cache of another tool"),
        ({"transform_config": {"config_groups": {"R1": 1}}}, "transform_config=.*: rotations that the model performs"),
        ({"format": "marlin-24"}, "format 'marlin-24' of config_groups.group_0 is not read"),
        ({"config_groups": {}}, "expected at least one group"),
    ],
)
def test_parts_of_compressed_tensors_that_are_not_read(tmp_path: Path, changes: Any, message: str) -> None:
    refused(write_checkpoint(tmp_path / "made", tiny_llama(), int8, {**INT8_CONFIG, **changes}), message)


def test_inputs_that_no_format_quantizes_so(tmp_path: Path) -> None:
    inputs = {"type": "int", "num_bits": 8, "strategy": "group", "group_size": 16, "dynamic": True}
    config = scheme(inputs, num_bits=8, strategy="channel")
    refused_by_weights(write_checkpoint(tmp_path / "made", tiny_llama(), int8, config), "inputs as int8, groups of 16")


def test_tensors_that_are_missing_or_unknown(made: Path) -> None:
    refused(edit(made, lambda t: t.pop(f"{LAYER}.scales")), f"{LAYER}.scales is missing")
    write_checkpoint(made, tiny_llama(), gptq(), GPTQ_CONFIG)
    refused(edit(made, lambda t: t.pop("model.norm.weight")), "nothing for 1 parameters .* first model.norm.weight")
    write_checkpoint(made, tiny_llama(), gptq(), GPTQ_CONFIG)
    refused(edit(made, lambda t: t.update({f"{LAYER}.extra": torch.ones(1)})), f"{LAYER}.extra: no such tensor")
    write_checkpoint(made, tiny_llama(), gptq(), GPTQ_CONFIG)
    refused(
        edit(made, lambda t: t.update({"model.extra": torch.ones(1)})), "1 tensors .* no place .* first model.extra"
    )
    write_checkpoint(made, tiny_llama(), gptq(), GPTQ_CONFIG)
    bare = torch.ones(32, 32, dtype=torch.int8)
    refused(edit(made, lambda t: t.update({"lm_head.weight": bare})), r"lm_head.weight has shape \[32, 32\]")


def test_another_shape(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    wide = tiny(LlamaConfig, LlamaForCausalLM, intermediate_size=64, pad_token_id=None)
    folder = write_checkpoint(tmp_path / "made", wide, awq(), AWQ_CONFIG)
    refused(folder, "another model: intermediate_size is 64 in the checkpoint and 48 in the base model")


def test_another_tokenizer(made: Path) -> None:
    other = {token: index + 1 for token, index in TOKENS.items()}
    assert isinstance(tiny_tokenizer(), PreTrainedTokenizerFast)
    refused(made, f"another tokenizer: {len(TOKENS)} of the base model's {len(TOKENS)} tokens", tokens=other)


def test_a_context_that_is_too_short_is_found(made: Path) -> None:
    recipe = CheckpointRecipe(path=with_config(made, max_position_embeddings=16))
    assert check_checkpoint(recipe, tiny_llama(), TOKENS) == 16


def test_another_model_of_the_same_shape(tmp_path: Path) -> None:
    other = tiny_llama(seed=1)
    refused_by_weights(write_checkpoint(tmp_path / "made", other, gptq(), GPTQ_CONFIG), "is not the base model's")
    base = tiny_llama()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        other.get_parameter(name).data.copy_(base.get_parameter(name))
    folder = write_checkpoint(tmp_path / "made", other, int8, INT8_CONFIG)
    refused_by_weights(folder, "q_proj.weight is not the base model's: 0.[89].* of its squares are left over")


def test_other_norm_weights(tmp_path: Path) -> None:
    other = copy.deepcopy(tiny_llama())
    other.get_parameter("model.layers.1.input_layernorm.weight").data[3:5] *= 1.5
    folder = write_checkpoint(tmp_path / "made", other, int8, INT8_CONFIG)
    refused_by_weights(folder, r"layers.1.input_layernorm.weight differs from the base model's in 2 of 32 values")


def test_a_damaged_group_index(made: Path) -> None:
    edit(made, lambda t: t[f"{LAYER}.g_idx"].fill_(7))
    refused_by_weights(made, "g_idx names group 7, of 2: the file is damaged")


def test_mixtures_of_experts(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "made", tiny_mixtral(), awq(), AWQ_CONFIG)
    refused(folder, "checkpoints of mixtures of experts are not read", model=tiny_mixtral())
