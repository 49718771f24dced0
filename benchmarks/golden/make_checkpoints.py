"""One layer as packers of other tools write it, and what they decode it to: tests/golden/checkpoints.safetensors.

Run by hand: python -m benchmarks.golden.make_checkpoints, where `pip install compressed-tensors bitsandbytes gptqmodel
autoawq` was (what these need to calibrate is not needed). No quantbench is needed. The layer is [32, 32]; a case has
its tensors as "CASE/SUFFIX", what the tool decodes them to as "CASE/=", and its configuration in the metadata.
"""

from __future__ import annotations

import importlib
import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from benchmarks.golden.golden_file import FOLDER, UNIT, integer_weight
from safetensors.torch import save_file
from torch import Tensor, nn

SIZE, GROUP = 32, 16
Case = tuple[dict[str, Tensor], Tensor, dict[str, Any]]
"""The layer's tensors, the weight that the tool decodes, and the quantization_config."""

SCHEMES: dict[str, tuple[str, dict[str, Any]]] = {
    "ct_int4_group": ("pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": GROUP}),
    "ct_int4_asymmetric": (
        "pack-quantized",
        {"num_bits": 4, "strategy": "group", "group_size": GROUP, "symmetric": False},
    ),
    "ct_int3_channel": ("pack-quantized", {"num_bits": 3, "strategy": "channel"}),
    "ct_int8_channel": ("int-quantized", {"num_bits": 8, "strategy": "channel"}),
    "ct_int8_asymmetric": ("int-quantized", {"num_bits": 8, "strategy": "channel", "symmetric": False}),
    "ct_fp8_channel": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}),
    "ct_fp8_tensor": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "tensor"}),
    "ct_fp8_block": (
        "float-quantized",
        {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [16, 16]},
    ),
}
PRESETS = {"ct_nvfp4": ("nvfp4-pack-quantized", "NVFP4A16"), "ct_mxfp4": ("mxfp4-pack-quantized", "MXFP4A16")}


def compressed_tensors(weight: Tensor, file_format: str, scheme: Any) -> Case:
    """By the compressor of a format, with scales from the smallest and largest weight of what shares one."""
    quantization = importlib.import_module("compressed_tensors.quantization")
    utils = importlib.import_module("compressed_tensors.quantization.utils")
    compressor = importlib.import_module("compressed_tensors.compressors").BaseCompressor.get_value_from_registry(
        file_format
    )
    args = scheme.weights
    parts = {
        "tensor": weight.reshape(1, 1, -1),
        "channel": weight[:, None],
        "block": weight.reshape(2, 16, 2, 16).transpose(1, 2).flatten(2),
    }
    cut = parts.get(args.strategy, weight.reshape(SIZE, -1, args.group_size or SIZE))
    common = utils.generate_gparam(weight.min(), weight.max()) if args.strategy == "tensor_group" else None
    scale, zero = utils.calculate_qparams(cut.amin(-1), cut.amax(-1), args, global_scale=common)
    state = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero}
    if common is not None:
        state["weight_global_scale"] = common.reshape(1)
    stored = compressor.compress(state, scheme)
    decoded = compressor.decompress(dict(stored), scheme)["weight"]
    config = quantization.QuantizationConfig(
        config_groups={"group_0": scheme}, format=file_format, quantization_status="compressed", ignore=["lm_head"]
    )
    return stored, decoded, json.loads(config.model_dump_json())


def gptq(weight: Tensor, bits: int, file_version: int, *, act_order: bool = False) -> Case:
    """By GPTQModel's packing of version 2, and its own conversion to version 1."""
    linear = importlib.import_module("gptqmodel.nn_modules.qlinear.torch").TorchLinear
    convert = importlib.import_module("gptqmodel.utils.model").convert_gptq_v2_to_v1_format_module
    settings = {"bits": bits, "group_size": GROUP, "sym": False, "desc_act": act_order}
    sizes = {"in_features": SIZE, "out_features": SIZE, "bias": False}
    layer = linear(**settings, **sizes, pack_dtype=torch.int32, register_buffers=True)
    groups = torch.arange(SIZE) // GROUP
    if act_order:
        groups = groups[torch.randperm(SIZE, generator=torch.Generator().manual_seed(5))]
    low = torch.stack([weight[:, groups == k].amin(1) for k in range(SIZE // GROUP)], 1).clamp(max=0)
    high = torch.stack([weight[:, groups == k].amax(1) for k in range(SIZE // GROUP)], 1).clamp(min=0)
    scale = ((high - low) / (2**bits - 1)).half().float()
    zero = (-low / scale).round().clamp(0, 2**bits - 1)
    source = nn.Linear(SIZE, SIZE, bias=False)
    source.weight.data = weight.clone()
    layer.pack_original(source, scale, zero, groups.int())
    decoded = (codes(weight, scale, zero, groups, bits) - zero[:, groups]) * scale[:, groups]
    if file_version == 1:
        config = importlib.import_module("gptqmodel.quantization.config").QuantizeConfig(**settings, format="gptq_v2")
        convert(layer, quantize_config=config)
    stored = {key: getattr(layer, key).clone() for key in ("qweight", "qzeros", "scales", "g_idx")}
    label = "gptq" if file_version == 1 else "gptq_v2"
    return stored, decoded, {"quant_method": "gptq", **settings, "checkpoint_format": label}


def codes(weight: Tensor, scale: Tensor, zero: Tensor, groups: Tensor, bits: int) -> Tensor:
    """The integers that the packing rounds to."""
    return ((weight + (zero * scale)[:, groups]) / scale[:, groups]).round().clamp(0, 2**bits - 1)


def awq(weight: Tensor) -> Case:
    """By AutoAWQ's packing, decoded by its own function."""
    gemm = importlib.import_module("awq.modules.linear.gemm").WQLinear_GEMM
    decode = importlib.import_module("awq.utils.packing_utils").dequantize_gemm
    groups = weight.reshape(SIZE, -1, GROUP)
    low, high = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
    scale = ((high - low) / 15).half().float()
    zero = (-low / scale).round().clamp(0, 15)
    source = nn.Linear(SIZE, SIZE, bias=False)
    source.weight.data = weight.clone()
    layer = gemm.from_linear(source, 4, GROUP, scales=scale.t().contiguous(), zeros=zero.t().contiguous())
    stored = {key: getattr(layer, key).clone() for key in ("qweight", "qzeros", "scales")}
    decoded = decode(stored["qweight"], stored["qzeros"], stored["scales"].float(), 4, GROUP).t()
    config = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}
    return stored, decoded, config


def bitsandbytes(weight: Tensor, kind: str, *, nested: bool) -> Case:
    """By its functions for processors."""
    functional = importlib.import_module("bitsandbytes.functional")
    if kind == "int8":
        integers, scales, _ = functional.int8_vectorwise_quant(weight.half())
        decoded = functional.int8_vectorwise_dequant(integers, scales)
        return {"weight": integers, "SCB": scales}, decoded, {"quant_method": "bitsandbytes", "load_in_8bit": True}
    packed, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=nested, quant_type=kind)
    stored = {f"weight.{key}": value for key, value in state.as_dict(packed=True).items()}
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
    return {"weight": packed, **stored}, functional.dequantize_4bit(packed, state), config


INPUTS: dict[str, dict[str, Any]] = {
    "int8_token": {"num_bits": 8, "strategy": "token", "dynamic": True},
    "int8_token_asymmetric": {"num_bits": 8, "strategy": "token", "dynamic": True, "symmetric": False},
    "int8_tensor": {"num_bits": 8, "strategy": "tensor", "dynamic": False},
    "int8_tensor_asymmetric": {"num_bits": 8, "strategy": "tensor", "dynamic": False, "symmetric": False},
    "fp8_token": {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True},
    "fp8_tensor": {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False},
    "fp8_group": {"num_bits": 8, "type": "float", "strategy": "group", "group_size": GROUP, "dynamic": True},
    "nvfp4": {
        "num_bits": 4,
        "type": "float",
        "strategy": "tensor_group",
        "group_size": GROUP,
        "dynamic": "local",
        "scale_dtype": "torch.float8_e4m3fn",
        "zp_dtype": "torch.float8_e4m3fn",
    },
}
"""Schemes for the inputs of layers."""


def inputs(x: Tensor, options: dict[str, Any]) -> dict[str, Tensor]:
    """What compressed-tensors makes of inputs x [1, tokens, SIZE], "=", and what it stores with the layer for that."""
    utils = importlib.import_module("compressed_tensors.quantization.utils")
    forward = importlib.import_module("compressed_tensors.quantization.lifecycle.forward")
    args = importlib.import_module("compressed_tensors.quantization").QuantizationArgs(**options)
    stored: dict[str, Tensor] = {}
    common = None
    if args.strategy == "tensor_group":
        common = stored["input_global_scale"] = utils.generate_gparam(x.min(), x.max()).reshape(1)
    if args.dynamic:
        scale, zero = utils.compute_dynamic_scales_and_zp(x, args, nn.Module(), global_scale=common)
    else:
        scale, zero = utils.calculate_qparams(x.min() * 0.8, x.max() * 0.8, args)
        stored |= {"input_scale": scale, "input_zero_point": zero}
    return {**stored, "=": forward.fake_quantize(x, scale, zero, args, global_scale=common)}


def main() -> None:
    """Write the file."""
    quantization = importlib.import_module("compressed_tensors.quantization")
    weight = integer_weight(SIZE, SIZE, seed=4) * UNIT
    cases: dict[str, Case] = {}
    for name, (file_format, options) in SCHEMES.items():
        args = quantization.QuantizationArgs(**options)
        scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args)
        cases[name] = compressed_tensors(weight, file_format, scheme)
    for name, (file_format, preset) in PRESETS.items():
        scheme = quantization.preset_name_to_scheme(preset, ["Linear"])
        cases[name] = compressed_tensors(weight, file_format, scheme)
    for bits in (2, 3, 4, 8):
        cases[f"gptq_v2_{bits}"] = gptq(weight, bits, 2)
        cases[f"gptq_v1_{bits}"] = gptq(weight, bits, 1)
    cases["gptq_v1_act_order"] = gptq(weight, 4, 1, act_order=True)
    cases["awq"] = awq(weight)
    cases["bnb_nf4"] = bitsandbytes(weight, "nf4", nested=False)
    cases["bnb_nf4_nested"] = bitsandbytes(weight, "nf4", nested=True)
    cases["bnb_fp4"] = bitsandbytes(weight, "fp4", nested=False)
    cases["bnb_int8"] = bitsandbytes(weight, "int8", nested=False)
    tensors = {"=": weight}
    for name, (stored, decoded, _) in cases.items():
        tensors |= {f"{name}/{key}": value.detach().contiguous() for key, value in stored.items()}
        tensors[f"{name}/="] = decoded.detach().float().contiguous()
    x = integer_weight(6, SIZE, seed=6)[None] * UNIT * 20
    tensors["input"] = x
    for name, options in INPUTS.items():
        tensors |= {f"input_{name}/{key}": value.contiguous() for key, value in inputs(x, options).items()}
    metadata = {name: json.dumps(config) for name, (_, _, config) in cases.items()}
    metadata |= {f"input_{name}": json.dumps(options) for name, options in INPUTS.items()}
    metadata["versions"] = json.dumps({name: _version(name) for name in ("compressed-tensors", "bitsandbytes")})
    save_file(tensors, FOLDER / "checkpoints.safetensors", metadata)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "from its source"


if __name__ == "__main__":
    main()
