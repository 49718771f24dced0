"""Whole checkpoints of tiny models: what is read of them, how many bits that is, and that they stay what they are."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from checkpoint_files import (
    AWQ_CONFIG,
    FP8_CONFIG,
    GPTQ_CONFIG,
    INT8_CONFIG,
    NF4_CONFIG,
    Pack,
    awq,
    dequantized,
    four_bits,
    fp8,
    gptq,
    int8,
    integers,
    scheme,
    write_checkpoint,
)
from quantbench.cells.summary import bits_of_model
from quantbench.checkpoints.read import read_checkpoint
from quantbench.checkpoints.recipe import CheckpointRecipe
from quantbench.config.identity import identity
from quantbench.core.errors import ModelError
from quantbench.models.handle import ModelHandle
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.observe import has_other_gains
from quantbench.pipeline.runtime import QuantizeInput
from quantbench.pipeline.state import Quantized
from quantbench.pipeline.stored import check_stored
from tiny import VOCABULARY, tiny_gpt2, tiny_handle, tiny_llama, tiny_llama_tied, tiny_opt

DOWN = "model.layers.1.mlp.down_proj"


def read(folder: Path, handle: ModelHandle) -> Quantized:
    return read_checkpoint(handle, CheckpointRecipe(path=folder), lambda _done, _total: None)


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    tokens = torch.randint(0, VOCABULARY, (2, 24), generator=torch.Generator().manual_seed(3))
    result: Tensor = model(input_ids=tokens).logits
    return result


@pytest.mark.parametrize(
    ("pack", "config"),
    [(gptq(version=1), GPTQ_CONFIG), (gptq(version=2), GPTQ_CONFIG), (awq(), AWQ_CONFIG)],
    ids=["gptq_v1", "gptq_v2_labelled_v1", "awq"],
)
def test_the_weights_are_what_was_packed(tmp_path: Path, pack: Pack, config: dict[str, Any]) -> None:
    handle = tiny_handle()
    found = read(write_checkpoint(tmp_path / "made", handle.model, pack, config), handle)
    weight = handle.model.get_parameter(f"{DOWN}.weight")
    assert torch.equal(found.artifact.changed[f"{DOWN}.weight"], dequantized(*integers(weight, 4, 16), 16))
    assert len(found.layers) == 14
    assert {layer.name for layer in found.layers} <= set(dict(handle.model.named_modules()))


def test_fp8_in_blocks(tmp_path: Path) -> None:
    handle = tiny_handle()
    found = read(write_checkpoint(tmp_path / "made", handle.model, fp8, FP8_CONFIG), handle).artifact
    stored = fp8(handle.model.get_parameter(f"{DOWN}.weight"))
    wide = stored["weight_scale_inv"].repeat_interleave(16, 0).repeat_interleave(16, 1)
    assert torch.equal(found.changed[f"{DOWN}.weight"], stored["weight"].float() * wide)
    assert found.effective_bits == 8 + 32 / 256
    assert len(found.ops) == 14
    (op,) = [op for op in found.ops if op.module == DOWN]
    assert isinstance(op, QuantizeInput)
    x = torch.randn(3, 48, generator=torch.Generator().manual_seed(0))
    scale = x.reshape(3, 3, 16).abs().amax(2, keepdim=True) / 448
    expected = ((x.reshape(3, 3, 16) / scale).to(torch.float8_e4m3fn).float() * scale).reshape(3, 48)
    torch.testing.assert_close(op.format.fake_quantize(x), expected, rtol=1e-6, atol=0)


def test_four_bits_of_bitsandbytes(tmp_path: Path) -> None:
    handle = tiny_handle()
    found = read(write_checkpoint(tmp_path / "made", handle.model, four_bits, NF4_CONFIG), handle).artifact
    weight = handle.model.get_parameter(f"{DOWN}.weight").reshape(-1, 64)
    absmax = weight.abs().amax(1, keepdim=True)
    expected = ((weight / absmax + 1) * 7.5).round() / 7.5 - 1
    torch.testing.assert_close(found.changed[f"{DOWN}.weight"].reshape(-1, 64), expected * absmax, rtol=1e-5, atol=1e-6)
    assert not found.ops


def test_a_wrong_label_of_gptq_is_said(tmp_path: Path) -> None:
    handle = tiny_handle()
    (_, note) = read(write_checkpoint(tmp_path / "made", handle.model, gptq(version=2), GPTQ_CONFIG), handle).notes
    assert note.startswith("zero points read as GPTQ version 2, against its label gptq: squared error")
    right = {**GPTQ_CONFIG, "checkpoint_format": "gptq_v2"}
    (_, note) = read(write_checkpoint(tmp_path / "made", handle.model, gptq(version=2), right), handle).notes
    assert note.startswith("zero points read as GPTQ version 2 gptq_v2: squared error")


def test_layers_may_have_settings_of_their_own(tmp_path: Path) -> None:
    handle = tiny_handle()
    folder = write_checkpoint(tmp_path / "made", handle.model, gptq(), GPTQ_CONFIG)
    tensors = load_file(folder / "model.safetensors")
    tensors |= {f"{DOWN}.{key}": value for key, value in gptq(8)(handle.model.get_parameter(f"{DOWN}.weight")).items()}
    save_file(tensors, folder / "model.safetensors")
    config = {**GPTQ_CONFIG, "dynamic": {r"+:.*layers\.1\..*down_proj": {"bits": 8}}}
    write_config(folder, config)
    bits = {layer.name: layer.bits_per_weight for layer in read(folder, handle).layers}
    assert bits[DOWN] == bits[DOWN.replace("1", "0")] + 4 + 4 / 16


def write_config(folder: Path, config: dict[str, Any]) -> None:
    from checkpoint_files import with_config

    with_config(folder, quantization_config=config)


@pytest.mark.parametrize("make", [tiny_llama, tiny_llama_tied, tiny_opt])
def test_bits_are_those_of_the_file(tmp_path: Path, make: Any) -> None:
    handle = tiny_handle(make())
    skip = ("lm_head", "model.decoder.project_in", "model.decoder.project_out")
    folder = write_checkpoint(tmp_path / "made", handle.model, int8, INT8_CONFIG, skip)
    config = {**INT8_CONFIG, "ignore": ["lm_head", "re:.*project_(in|out)"]}
    write_config(folder, config)
    found = read(folder, handle)
    tensors = load_file(folder / "model.safetensors")
    stored = 8 * sum(tensor.nbytes for tensor in tensors.values())
    parameters = sum(parameter.numel() for parameter in handle.model.parameters())
    assert bits_of_model(handle, found.artifact) == pytest.approx(stored / parameters, rel=1e-12)
    quantized = [name for name, tensor in tensors.items() if tensor.dtype == torch.int8]
    scales = sum(tensors[f"{name}_scale"].numel() for name in quantized)
    weights = sum(tensors[name].numel() for name in quantized)
    assert found.artifact.effective_bits == pytest.approx(8 + 32 * scales / weights, rel=1e-12)


def test_weights_that_are_stored_transposed(tmp_path: Path) -> None:
    handle = tiny_handle(tiny_gpt2())
    folder = write_checkpoint(tmp_path / "made", handle.model, awq(), AWQ_CONFIG)
    name = "transformer.h.0.mlp.c_fc"
    tensors = load_file(folder / "model.safetensors")
    weight = tensors.pop(f"{name}.weight").float().t()
    tensors |= {f"{name}.{key}": value for key, value in awq()(weight).items()}
    save_file(tensors, folder / "model.safetensors")
    found = read(folder, handle).artifact
    assert torch.equal(found.changed[f"{name}.weight"], dequantized(*integers(weight, 4, 16), 16).t())
    found.install(handle)
    assert torch.isfinite(logits(handle.model)).all()


def test_a_stored_checkpoint_gives_the_same_logits(tmp_path: Path) -> None:
    inputs = {"type": "int", "num_bits": 8, "strategy": "token", "dynamic": True, "symmetric": True}
    config = scheme(inputs, num_bits=8, strategy="channel")
    handle = tiny_handle(tiny_llama_tied())
    artifact = read(write_checkpoint(tmp_path / "made", handle.model, int8, config), handle).artifact
    before = logits(handle.model)
    tensors, spec = artifact.to_tensors()
    check_stored(artifact, tensors, spec)
    artifact.install(handle)
    fresh = logits(handle.model)
    again = Artifact.from_tensors(tensors, spec)
    again.install(handle)
    assert torch.equal(logits(handle.model), fresh)
    assert not torch.equal(fresh, before)
    assert again.effective_bits == artifact.effective_bits
    assert bits_of_model(handle, again) == bits_of_model(handle, artifact)
    handle.restore()
    assert torch.equal(logits(handle.model), before)


def test_inputs_with_fixed_scales_are_quantized_with_them(tmp_path: Path) -> None:
    def pack(weight: Tensor) -> dict[str, Tensor]:
        zero = torch.tensor([-28], dtype=torch.int8)
        return {**int8(weight), "input_scale": torch.tensor([0.25]), "input_zero_point": zero}

    inputs = {"type": "int", "num_bits": 8, "strategy": "tensor", "dynamic": False, "symmetric": False}
    handle = tiny_handle()
    config = scheme(inputs, num_bits=8, strategy="channel")
    ops = read(write_checkpoint(tmp_path / "made", handle.model, pack, config), handle).artifact.ops
    assert len(ops) == 14
    (op,) = [op for op in ops if op.module == DOWN]
    assert isinstance(op, QuantizeInput)
    x = torch.tensor([[-30.0, -25.1, 0.0, 0.3, 7.1, 100.0]])
    expected = ((x / 0.25).round() - 28).clamp(-128, 127).add(28).mul(0.25)
    assert torch.equal(op.format.fake_quantize(x, op.params["scale"], op.params["zero"]), expected)


def test_scales_that_are_folded_into_normalizations_are_the_same_model(tmp_path: Path) -> None:
    handle = tiny_handle()
    smoothed = smoothed_llama(handle.model)
    found = read(write_checkpoint(tmp_path / "made", smoothed, int8, INT8_CONFIG), handle)
    assert "2 normalizations hold scales that weights of their blocks make up for" in found.notes
    assert not has_other_gains(handle)
    before = logits(handle.model)
    found.artifact.install(handle)
    assert has_other_gains(handle)
    torch.testing.assert_close(logits(handle.model), before, rtol=0, atol=0.3)


def test_columns_that_scales_made_too_small_to_be_stored_are_no_other_model(tmp_path: Path) -> None:
    handle = tiny_handle()
    smoothed = smoothed_llama(handle.model, tiny=9)
    found = read(write_checkpoint(tmp_path / "made", smoothed, int8, INT8_CONFIG), handle)
    assert "2 normalizations hold scales that weights of their blocks make up for" in found.notes
    weight = found.artifact.changed["model.layers.0.mlp.gate_proj.weight"]
    assert int((weight == 0).all(0).sum()) == 9
    smoothed.get_parameter("model.layers.0.post_attention_layernorm.weight").data = torch.linspace(0.5, 2, 32)
    with pytest.raises(ModelError, match="no weight of its block makes up for it"):
        read(write_checkpoint(tmp_path / "other", smoothed, int8, INT8_CONFIG), handle)


def smoothed_llama(model: PreTrainedModel, tiny: int = 0) -> PreTrainedModel:
    """The same function, with other gains in front of the MLPs and other columns in their weights, some tiny."""
    other = copy.deepcopy(model)
    draw = torch.Generator().manual_seed(0)
    for index in range(2):
        scales = torch.rand(32, generator=draw).mul(2).sub(1).exp()
        scales[:tiny] = 1e-3
        other.get_parameter(f"model.layers.{index}.post_attention_layernorm.weight").data /= scales
        for name in ("gate_proj", "up_proj"):
            other.get_parameter(f"model.layers.{index}.mlp.{name}.weight").data *= scales
    return other


def test_the_identity_is_the_content(tmp_path: Path) -> None:
    model = tiny_llama()
    first = write_checkpoint(tmp_path / "first", model, awq(), AWQ_CONFIG)
    shutil.copytree(first, tmp_path / "moved")
    other = write_checkpoint(tmp_path / "other", model, awq(), {**AWQ_CONFIG, "note": "changed"})
    same = [CheckpointRecipe(path=first), CheckpointRecipe(path=tmp_path / "moved", calib="pile")]
    found = [identity(recipe) for recipe in (*same, CheckpointRecipe(path=other))]
    assert found[0] == found[1] != found[2]
    (first / "README.md").write_text("about it")
    assert identity(CheckpointRecipe(path=first)) == found[0]
