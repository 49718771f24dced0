"""GPTQ checkpoints, in the second form of their zero points.

Layout: that of the packages AutoGPTQ and GPTQModel, which vLLM and transformers read. For a layer [out, in] of b bits
and g groups

    qweight  int32 [in b / 32, out]   levels, a stream of bits down each column
    qzeros   int32 [g, out b / 32]    zero points, a stream of bits along each row
    scales   float16 [g, out]
    g_idx    int32 [in]               the group of each column

The first form ("gptq") stores zero - 1, which has no place for a zero point of 0. This is the second ("gptq_v2"), which
stores zero as it is; readers tell them apart by checkpoint_format in the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantbench.core.files import write_json
from quantbench.export.codes import IntCodes, NotHeldError, common_group, exact_in, int_codes, regrouped
from quantbench.export.packing import rows_of_words
from quantbench.export.saving import save_quantized
from quantbench.export.subject import Reasons, Subject, Written, linear_layers, refuse_operations, remaining
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.models.structure import find_blocks

BITS = (2, 3, 4, 8)


class Gptq:
    """Integers of 2, 3, 4 or 8 bits, the same in all layers of the blocks, with float16 scales."""

    name: ClassVar[str] = "gptq"

    def check(self, subject: Subject) -> None:
        """One number of bits and one symmetry in all linear layers of the blocks, and nothing else quantized."""
        reasons = Reasons(self.name)
        refuse_operations(subject, reasons, inputs=False)
        found: dict[str, IntCodes] = {}
        for name, weight in linear_layers(subject, reasons):
            reasons.attempt(name, lambda n=name, w=weight: found.update({n: _codes(w)}))  # type: ignore[misc]
        _check_alike(subject, reasons, found)
        reasons.refuse(subject.run_id)

    def write(self, subject: Subject, folder: Path) -> Written:
        """Pack each layer; quantize_config.json repeats what config.json says, for readers that ask for it."""
        weights = subject.artifact.weights
        tensors = remaining(subject.model, weights)
        size = common_group([int_codes(weight) for weight in weights.values()])
        for name, weight in weights.items():
            tensors |= {f"{name}.{key}": value for key, value in pack_gptq(_codes(weight), size).items()}
        config = _config(int_codes(next(iter(weights.values()))), size, _ordered(weights))
        save_quantized(subject.model, subject.tokenizer, tensors, config, folder)
        write_json(folder / "quantize_config.json", config)
        return Written("rounded", (*regrouped(weights, size), FLOAT16))


FLOAT16 = (
    "Kernels of this format dequantize in float16: weights come out rounded to 16 bits where the model's dtype is "
    "another one."
)


def pack_gptq(codes: IntCodes, size: int | None) -> dict[str, Tensor]:
    """The tensors of a layer by their names in it; size: columns of a group, None for one scale a row."""
    width = codes.levels.shape[1]
    if codes.column_group is None and size is not None:
        codes = codes.in_groups(size)
    index = codes.column_group
    if index is None:
        index = torch.arange(width) // codes.group_size
    return {
        "qweight": rows_of_words(codes.levels, codes.bits).t().contiguous(),
        "qzeros": rows_of_words(codes.zeros.t().contiguous(), codes.bits),
        "scales": codes.scales.t().to(torch.float16).contiguous(),
        "g_idx": index.to(torch.int32),
    }


def check_words(codes: IntCodes, rows: int, columns: int) -> None:
    """Raise NotHeldError unless [out, in] can be packed in words and the scales are float16."""
    height, width = codes.levels.shape
    if height % rows or width % columns:
        raise NotHeldError(
            f"its shape [{height}, {width}] is no multiple of [{rows}, {columns}], as words of 32 bits need. "
            "Exact: --to compressed-tensors"
        )
    if not exact_in(codes.scales, torch.float16):
        raise NotHeldError(
            "its scales are no float16 numbers. Exact: --to compressed-tensors, or a run with "
            "quantizer.weight.scale_dtype=float16"
        )


def _codes(weight: QuantizedWeight) -> IntCodes:
    codes = int_codes(weight)
    if codes.bits not in BITS:
        raise NotHeldError(f"{codes.bits} bits, and the format has {', '.join(map(str, BITS))}. {OTHER}")
    check_words(codes, 32, 32)
    return codes


OTHER = "Exact: --to compressed-tensors"


def _check_alike(subject: Subject, reasons: Reasons, found: Mapping[str, IntCodes]) -> None:
    prefix, blocks = find_blocks(subject.model)
    inside = {f"{prefix}.{name}" for name, module in blocks.named_modules() if isinstance(module, nn.Linear)}
    for name in sorted(inside - subject.artifact.weights.keys()):
        reasons.add(
            f"it is in full precision, and the format has all linear layers of the blocks quantized. {OTHER}", name
        )
    for name, codes in found.items():
        first = next(iter(found.values()))
        if name not in inside:
            reasons.add(f"it is quantized outside of the blocks. {OTHER}", name)
        if (codes.bits, codes.symmetric) != (first.bits, first.symmetric):
            reasons.add(f"its bits or symmetry are not those of {next(iter(found))}. {OTHER}", name)
        if codes.column_group is not None and len({one.fitted for one in found.values()}) > 1:
            reasons.add("act-order with groups of several sizes. Exact: --to dense", name)


def _ordered(weights: Mapping[str, QuantizedWeight]) -> bool:
    return any(weight.group_index is not None for weight in weights.values())


def _config(codes: IntCodes, size: int | None, ordered: bool) -> dict[str, Any]:
    return {
        "quant_method": "gptq",
        "bits": codes.bits,
        "group_size": -1 if size is None else size,
        "desc_act": ordered,
        "sym": codes.symmetric,
        "lm_head": False,
        "checkpoint_format": "gptq_v2",
        "pack_dtype": "int32",
        "true_sequential": True,
        "damp_percent": 0.01,
    }
