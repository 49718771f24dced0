"""Layouts against layers that other tools packed, and decoded by themselves (benchmarks/golden/make_checkpoints.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from quantbench.checkpoints.gptq import GptqLayout, Zeros
from quantbench.checkpoints.inputs import input_quantization
from quantbench.checkpoints.layout import Header
from quantbench.checkpoints.recognize import recognize
from quantbench.checkpoints.scheme import Scheme

FILE = Path(__file__).parents[1] / "golden" / "checkpoints.safetensors"
LAYER = "model.layers.0.self_attn.q_proj"
NAMES = {
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.float8_e4m3fn: "F8_E4M3",
}


def contents() -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(FILE, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        return tensors, {name: json.loads(text) for name, text in file.metadata().items()}


TENSORS, CONFIGS = contents()
ROUNDED = {"ct_nvfp4": 2**-8, "bnb_int8": 2**-10}
"""Where the tool decodes to 16 bits: bfloat16 and float16."""
INPUTS = sorted(name for name in CONFIGS if name.startswith("input_"))
CASES = sorted(CONFIGS.keys() - {"versions", *INPUTS})


def parts_of(case: str) -> dict[str, Tensor]:
    return {name.partition("/")[2]: t for name, t in TENSORS.items() if name.startswith(f"{case}/") and name[-1] != "="}


def headers_of(parts: dict[str, Tensor]) -> dict[str, Header]:
    return {key: Header(NAMES[t.dtype], tuple(t.shape), t.nbytes) for key, t in parts.items()}


@pytest.mark.parametrize("case", CASES)
def test_a_layer_stands_for_what_its_tool_reads_it_as(case: str) -> None:
    layout, parts, expected = recognize(FILE, CONFIGS[case], {}), parts_of(case), TENSORS[f"{case}/="]
    if isinstance(layout, GptqLayout) and layout.labelled == "gptq":
        layout = layout.with_zeros(Zeros.VERSION_1_WORDS)
    headers = headers_of(parts)
    assert layout.quantized(LAYER, headers)
    wanted = layout.parts(LAYER, (32, 32), headers)
    assert headers.keys() <= wanted.keys()
    assert not [problem for key, one in headers.items() if (problem := wanted[key].problem(one))]
    found = layout.dequantize(LAYER, (32, 32), parts)
    torch.testing.assert_close(found, expected, rtol=ROUNDED.get(case, 1e-6), atol=1e-7)


@pytest.mark.parametrize("case", CASES)
def test_a_layer_is_near_the_weight_that_was_packed(case: str) -> None:
    weight, expected = TENSORS["="], TENSORS[f"{case}/="]
    share = float((weight - expected).square().sum() / weight.square().sum())
    assert share < (0.5 if case.endswith("_2") else 0.05)


@pytest.mark.parametrize("case", INPUTS)
def test_inputs_are_quantized_as_compressed_tensors_does(case: str) -> None:
    found = input_quantization(Scheme.of(CONFIGS[case], "input_activations"), parts_of(case))
    x, params = TENSORS["input"], found.params
    values = found.format.fake_quantize(x, params.get("scale"), params.get("zero"))
    assert not torch.equal(values, x)
    torch.testing.assert_close(values, TENSORS[f"{case}/="], rtol=1e-5, atol=1e-6)
