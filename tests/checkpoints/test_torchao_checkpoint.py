"""Files of torchao: layers that it wrote itself (benchmarks/golden/make_torchao.py), and whole ones of a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from checkpoint_files import write_checkpoint
from quantbench.checkpoints.layout import Header
from quantbench.checkpoints.read import read_checkpoint
from quantbench.checkpoints.recipe import CheckpointRecipe
from quantbench.checkpoints.recognize import recognize
from quantbench.core.errors import ModelError
from quantbench.models.handle import ModelHandle
from quantbench.pipeline.runtime import QuantizeInput
from quantbench.pipeline.state import Quantized
from tiny import tiny_handle

FILE = Path(__file__).parents[1] / "golden" / "torchao.safetensors"
LAYER = "model.layers.0.self_attn.q_proj"
EXPERTS = "model.layers.0.experts.gate_up_proj"
SHAPE = (64, 32)
CONFIG = {"quant_method": "torchao"}
NAMES = {torch.int8: "I8", torch.float32: "F32", torch.float8_e4m3fn: "F8_E4M3"}


def contents() -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(FILE, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        return tensors, {name: json.loads(text) for name, text in file.metadata().items()}


TENSORS, METADATA = contents()
CASES = sorted(METADATA.keys() - {"versions"})


@pytest.mark.parametrize("case", CASES)
def test_a_layer_does_what_torchao_does_with_it(case: str) -> None:
    layout = recognize(FILE, CONFIG, METADATA[case])
    parts = {n.removeprefix(f"{case}/{LAYER}."): t for n, t in TENSORS.items() if n.startswith(f"{case}/{LAYER}.")}
    headers = {key: Header(NAMES[t.dtype], tuple(t.shape), t.nbytes) for key, t in parts.items()}
    assert layout.quantized(LAYER, headers)
    assert not layout.quantized("lm_head", {})
    wanted = layout.parts(LAYER, SHAPE, headers)
    assert headers.keys() <= wanted.keys()
    assert not [problem for key, one in headers.items() if (problem := wanted[key].problem(one))]
    weight = layout.dequantize(LAYER, SHAPE, parts)
    torch.testing.assert_close(weight, TENSORS[f"{case}/="], rtol=1e-6, atol=1e-7)
    found = layout.input_quantization(LAYER, parts)
    assert (found is not None) == ("inputs" in case)
    x = TENSORS["input"]
    if found is not None:
        rounded = found.format.fake_quantize(x)
        assert not torch.equal(rounded, x)
        x = rounded
    off = (x @ weight.t() - TENSORS[f"{case}/output"]).abs()
    # A token's largest input lies half-way between two codes of a symmetric grid: the last bit decides which it takes.
    assert (off.amax(1) < 1e-5).float().mean() >= (0.9 if case == "int8_inputs" else 1)
    assert (off <= x.abs().amax(1, keepdim=True) / 127.5 * weight.abs().max() + 1e-5).all()


def metadata(name: str, kind: str = "Int8Tensor", **data: Any) -> dict[str, str]:
    """What torchao says of a weight [out, 32], with a scale for each row."""
    return {name: json.dumps({"_type": kind, "_data": {"block_size": [1, 32], **data}, "_tensor_data_names": []})}


INPUTS = {
    "_type": "QuantizeTensorToInt8Kwargs",
    "_data": {"granularity": {"_type": "PerRow"}, "mapping_type": {"_type": "MappingType", "_data": "SYMMETRIC"}},
}


def rows(weight: Tensor) -> dict[str, Tensor]:
    """Int8Tensor with a scale for each row."""
    scale = weight.abs().amax(1, keepdim=True) / 127.5
    codes = (weight / scale).round().clamp(-128, 127).to(torch.int8)
    return {
        "_weight_qdata": codes,
        "_weight_scale": scale,
        "_weight_zero_point": torch.zeros_like(scale).to(torch.int8),
    }


def per_row(dim: int) -> dict[str, Any]:
    return {"_type": "PerRow", "_data": {"dim": dim}}


def float8(**settings: Any) -> dict[str, Any]:
    """Inputs in e4m3 by token, or with other settings."""
    common = {"granularity": per_row(-1), "float8_dtype": {"_type": "torch.dtype", "_data": "float8_e4m3fn"}}
    return {"_type": "QuantizeTensorToFloat8Kwargs", "_data": common | settings}


def test_inputs_in_fp8_have_a_scale_for_each_token() -> None:
    described = {"tensor_names": json.dumps([f"{LAYER}.weight"])}
    described |= metadata(f"{LAYER}.weight", "Float8Tensor", act_quant_kwargs=float8())
    found = recognize(FILE, CONFIG, described).input_quantization(LAYER, {})
    assert found is not None
    x = TENSORS["input"]
    scale = x.abs().amax(1, keepdim=True) / 448
    torch.testing.assert_close(found.format.fake_quantize(x), (x / scale).to(torch.float8_e4m3fn).float() * scale)


@pytest.fixture
def made(tmp_path: Path) -> tuple[ModelHandle, Callable[..., Path]]:
    """A tiny model, and what writes a checkpoint of it: with other metadata, if any is given."""
    handle = tiny_handle()

    def write(changes: dict[str, str] | None = None, *, without: tuple[str, ...] = ()) -> Path:
        folder = write_checkpoint(tmp_path / "made", handle.model, rows, CONFIG)
        tensors = load_file(folder / "model.safetensors")
        described: dict[str, str] = {}
        for name, tensor in tensors.items():
            if name.endswith("._weight_qdata"):
                described |= metadata(
                    name.replace("_weight_qdata", "weight"), block_size=[1, tensor.shape[1]], act_quant_kwargs=INPUTS
                )
            elif "._weight_" not in name:
                described[name] = json.dumps({"_type": "Tensor"})
        described |= {"tensor_names": json.dumps(list(described)), **(changes or {})}
        left = {name: text for name, text in described.items() if name not in without}
        if without:
            left["tensor_names"] = json.dumps([name for name in described if name not in (*without, "tensor_names")])
        save_file(tensors, folder / "model.safetensors", left)
        return folder

    return handle, write


def read(folder: Path, handle: ModelHandle) -> Quantized:
    return read_checkpoint(handle, CheckpointRecipe(path=folder), lambda _done, _total: None)


def test_a_whole_checkpoint(made: tuple[ModelHandle, Callable[..., Path]]) -> None:
    handle, write = made
    found = read(write(), handle)
    stored = rows(handle.model.get_parameter(f"{LAYER}.weight").float())
    assert torch.equal(
        found.artifact.changed[f"{LAYER}.weight"], stored["_weight_qdata"].float() * stored["_weight_scale"]
    )
    assert len(found.layers) == 14
    assert "read from a checkpoint: torchao (Int8Tensor)" in found.notes
    assert {layer.bits_per_weight for layer in found.layers} == {8 + 40 / 32, 8 + 40 / 48}  # scales and zero points
    assert len([op for op in found.artifact.ops if isinstance(op, QuantizeInput)]) == 14


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (metadata(f"{LAYER}.weight", "Int4TilePackedTo4dTensor"), "torchao's Int4TilePackedTo4dTensor is not read"),
        (metadata(f"{LAYER}.weight", block_size=[1, 7]), "blocks of 1 x 7 do not divide"),
        (metadata(f"{LAYER}.weight", block_size=[1, 0]), r"block_size=\[1, 0\] of its torchao metadata"),
        (metadata(f"{LAYER}.weight", block_size=[1, 16]), r"_weight_scale has shape \[32, 1\], not \[32, 2\]"),
        (metadata(f"{LAYER}.weight", "Float8Tensor"), "_weight_qdata is I8, not F8_E4M3"),
        (metadata(f"{LAYER}.weight", act_quant_kwargs={"_type": "Other"}), "act_quant_kwargs=.*are not read"),
        (
            metadata(f"{LAYER}.weight", "IntxUnpackedToInt8Tensor", activation_quantization="other"),
            "activation_quantization='other' is not read",
        ),
        (metadata(f"{LAYER}.weight", block_size=[True, 32]), r"block_size=\[True, 32\] of its torchao metadata"),
        ({f"{LAYER}.weight": json.dumps({"_type": ["a"], "_data": {}})}, r"torchao's \['a'\] is not read"),
        (
            metadata(f"{LAYER}.weight", act_quant_kwargs=float8(float8_dtype={"_data": "float8_e5m2"})),
            "are not read: int8",
        ),
        (metadata(f"{LAYER}.weight", act_quant_kwargs=float8(granularity=per_row(0))), "are not read: int8 and e4m3"),
        ({f"{LAYER}.weight": "{"}, "its torchao metadata cannot be read as JSON"),
        ({f"{LAYER}.weight": "[]"}, r"its torchao metadata is '\[\]': expected a mapping"),
        (
            metadata(EXPERTS) | {"tensor_names": json.dumps([EXPERTS])},
            "is quantized by torchao and no weight of a linear layer",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(
    made: tuple[ModelHandle, Callable[..., Path]], changes: dict[str, str], message: str
) -> None:
    handle, write = made
    with pytest.raises(ModelError, match=message):
        read(write(changes), handle)


def test_metadata_that_does_not_describe_the_tensors(made: tuple[ModelHandle, Callable[..., Path]]) -> None:
    handle, write = made
    with pytest.raises(ModelError, match=r"tensors of the checkpoint have no place|has nothing for"):
        read(write(without=(f"{LAYER}.weight",)), handle)
    folder = write()
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"describes no quantized tensor: torchao 0\.15 and newer write them so"):
        read(folder, handle)
