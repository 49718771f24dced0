"""Layers that torchao quantized, taken apart as transformers stores them: tests/golden/torchao.safetensors.

Run by hand: python -m benchmarks.golden.make_torchao, where `pip install torchao==0.18.0` was. No quantbench is needed.
The layer is [64, 32]; a case has its tensors as "CASE/LAYER._weight_...", what torchao decodes them to as "CASE/=", and
what the layer makes of the tensor "input" as "CASE/output", computed by torchao itself. The metadata has the version,
and for each case the metadata that torchao writes, as JSON.
"""

from __future__ import annotations

import importlib
import json
from importlib.metadata import version
from typing import Any

import torch
from benchmarks.golden.golden_file import FOLDER, UNIT, integer_weight
from safetensors.torch import save_file
from torch import Tensor, nn

LAYER = "model.layers.0.self_attn.q_proj"
ROWS, COLUMNS, GROUP = 64, 32, 16


def configurations() -> dict[str, Any]:
    """Those that torchao can make on a processor."""
    ao = importlib.import_module("torchao.quantization")
    group = ao.PerGroup(GROUP)
    asymmetric = ao.MappingType.ASYMMETRIC
    int3, int4 = (getattr(torch, name) for name in ("int3", "int4"))
    return {
        "int8": ao.Int8WeightOnlyConfig(),
        "int8_inputs": ao.Int8DynamicActivationInt8WeightConfig(),
        "int8_inputs_asymmetric": ao.Int8DynamicActivationInt8WeightConfig(act_mapping_type=asymmetric),
        "fp8": ao.Float8WeightOnlyConfig(),
        "int4_group": ao.IntxWeightOnlyConfig(weight_dtype=int4, granularity=group),
        "int3_group_asymmetric": ao.IntxWeightOnlyConfig(weight_dtype=int3, granularity=group, mapping_type=asymmetric),
        "int4_inputs": ao.Int8DynamicActivationIntxWeightConfig(weight_dtype=int4, weight_granularity=group),
    }


def main() -> None:
    """Write the file."""
    ao = importlib.import_module("torchao.quantization")
    support = importlib.import_module("torchao.prototype.safetensors.safetensors_support")
    weight = integer_weight(ROWS, COLUMNS, seed=7) * UNIT
    x = torch.randn(20, COLUMNS, generator=torch.Generator().manual_seed(8))  # no ties: torchao multiplies by 1 / scale
    tensors: dict[str, Tensor] = {"=": weight, "input": x}
    metadata = {"versions": json.dumps({"torchao": version("torchao")})}
    for name, config in configurations().items():
        layer = nn.Linear(COLUMNS, ROWS, bias=False)
        layer.weight.data = weight.clone()
        ao.quantize_(layer, config)
        stored, described = support.flatten_tensor_state_dict({f"{LAYER}.weight": layer.weight.data})
        tensors |= {f"{name}/{key}": value.contiguous() for key, value in stored.items()}
        tensors[f"{name}/="] = layer.weight.dequantize().detach().float()
        with torch.no_grad():
            tensors[f"{name}/output"] = layer(x).float()
        metadata[name] = json.dumps(described)
    save_file(tensors, FOLDER / "torchao.safetensors", metadata)


if __name__ == "__main__":
    main()
