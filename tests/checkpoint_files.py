"""Tiny checkpoints as other tools write them, packed by loops that share no code with what reads them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from tiny import tiny_tokenizer

Pack = Callable[[Tensor], dict[str, Tensor]]
"""A weight [out, in] -> the tensors of its layer, by what stands behind "LAYER."."""


def integers(weight: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """(codes [out, in], scales float16 [out, g], zero points [out, g]) of rounding to nearest, asymmetric."""
    groups = weight.reshape(len(weight), -1, group)
    low, high = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
    scales = ((high - low) / (2**bits - 1)).half()
    zeros = (-low / scales.float()).round().clamp(0, 2**bits - 1)
    codes = (groups / scales.float()[..., None] + zeros[..., None]).round().clamp(0, 2**bits - 1)
    return codes.reshape(weight.shape).int(), scales, zeros.int()


def dequantized(codes: Tensor, scales: Tensor, zeros: Tensor, group: int) -> Tensor:
    """What they stand for, float32 [out, in]."""
    wide = [one.float().repeat_interleave(group, 1) for one in (scales, zeros)]
    return (codes - wide[1]) * wide[0]


def into_words(values: Tensor, bits: int) -> Tensor:
    """Rows of integers as rows of 32-bit words, without gaps."""
    rows = []
    for row in values.tolist():
        stream = sum(value << (bits * index) for index, value in enumerate(row))
        words = [(stream >> (32 * k)) & 0xFFFFFFFF for k in range(-(-len(row) * bits // 32))]
        rows.append([word - 2**32 if word >= 2**31 else word for word in words])
    return torch.tensor(rows, dtype=torch.int32)


def gptq(bits: int = 4, group: int = 16, version: int = 1) -> Pack:
    """GPTQ files, by version."""

    def pack(weight: Tensor) -> dict[str, Tensor]:
        codes, scales, zeros = integers(weight, bits, group)
        stored = (zeros - 1) % 2**bits if version == 1 else zeros
        return {
            "qweight": into_words(codes, bits).t().contiguous(),
            "qzeros": into_words(stored.t(), bits),
            "scales": scales.t().contiguous(),
            "g_idx": torch.arange(weight.shape[1], dtype=torch.int32) // group,
        }

    return pack


def awq(group: int = 16) -> Pack:
    """AWQ files of version gemm."""

    def pack(weight: Tensor) -> dict[str, Tensor]:
        codes, scales, zeros = integers(weight, 4, group)

        def ordered(values: Tensor) -> Tensor:
            swapped = values.clone()
            for start in range(0, values.shape[1], 8):
                for place, output in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
                    swapped[:, start + place] = values[:, start + output]
            return into_words(swapped, 4)

        return {"qweight": ordered(codes.t()), "qzeros": ordered(zeros.t()), "scales": scales.t().contiguous()}

    return pack


def write_checkpoint(
    folder: Path, model: PreTrainedModel, pack: Pack, config: Mapping[str, Any], skip: tuple[str, ...] = ("lm_head",)
) -> Path:
    """A checkpoint of a model: its linear layers packed, the rest in float16; with configuration and tokenizer."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.config.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    tensors: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name not in skip:
            tensors |= {f"{name}.{key}": value for key, value in pack(module.weight.data.float()).items()}
            if module.bias is not None:
                tensors[f"{name}.bias"] = module.bias.data.half()
        else:
            own = module.named_parameters(recurse=False)
            tensors |= {f"{name}.{key}": value.data.half() for key, value in own}
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    return with_config(folder, quantization_config=dict(config))


def with_config(folder: Path, **changes: Any) -> Path:
    """The folder with other values in its config.json."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(config), encoding="utf-8")
    return folder


def int8(weight: Tensor) -> dict[str, Tensor]:
    """int-quantized of compressed-tensors, with a scale for each row."""
    scale = weight.abs().amax(1, keepdim=True) / 127
    return {"weight": (weight / scale).round().to(torch.int8), "weight_scale": scale}


def fp8(weight: Tensor) -> dict[str, Tensor]:
    """FP8 of transformers, with a scale for each 16 x 16 weights."""
    rows, columns = len(weight) // 16, weight.shape[1] // 16
    scale = torch.tensor([[_block(weight, i, j).abs().max() / 448 for j in range(columns)] for i in range(rows)])
    wide = scale.repeat_interleave(16, 0).repeat_interleave(16, 1)
    return {"weight": (weight / wide).to(torch.float8_e4m3fn), "weight_scale_inv": scale}


def _block(weight: Tensor, row: int, column: int) -> Tensor:
    return weight[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]


def four_bits(weight: Tensor) -> dict[str, Tensor]:
    """bitsandbytes, in blocks of 64 of the flattened weight, with evenly spaced values as its table."""
    table = torch.linspace(-1, 1, 16)
    blocks = weight.reshape(-1, 64)
    absmax = blocks.abs().amax(1)
    codes = (blocks / absmax[:, None])[..., None].sub(table).abs().argmin(2).flatten().to(torch.uint8)
    state = json.dumps({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": list(weight.shape)})
    return {
        "weight": (codes[::2] * 16 + codes[1::2])[:, None],
        "weight.absmax": absmax,
        "weight.quant_map": table.clone(),
        "weight.quant_state.bitsandbytes__nf4": torch.tensor(list(state.encode()), dtype=torch.uint8),
    }


def scheme(inputs: Mapping[str, Any] | None = None, **weights: Any) -> dict[str, Any]:
    """A quantization_config of compressed-tensors with one group."""
    group: dict[str, Any] = {"targets": ["Linear"], "weights": {"type": "int", "symmetric": True, **weights}}
    group["input_activations"] = dict(inputs) if inputs else None
    groups = {"group_0": group}
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "config_groups": groups,
        "ignore": ["lm_head"],
    }


GPTQ_CONFIG = {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": False, "checkpoint_format": "gptq"}
AWQ_CONFIG = {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True, "version": "gemm"}
INT8_CONFIG = scheme(num_bits=8, strategy="channel")
FP8_CONFIG = {"quant_method": "fp8", "weight_block_size": [16, 16], "activation_scheme": "dynamic"}
NF4_CONFIG = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
