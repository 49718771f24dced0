"""compressed-tensors: the format of vLLM's checkpoints, which SGLang and transformers read, too.

Specification: the package compressed-tensors (0.20), whose compressors define the tensors of each format:

    pack-quantized        integers of b bits in words of 32, one stream a row; zero points packed along rows
    int-quantized         int8 [out, in], for quantized inputs
    naive-quantized       float8_e4m3fn [out, in]; float-quantized: the same with quantized inputs
    nvfp4-pack-quantized  pairs of e2m1 codes, e4m3 scales, and a global scale by which it *divides*
    mxfp4-, mxfp6-pack-quantized, mxfp8-quantized  elements with e8m0 scales as bytes
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from quantbench.export.codes import common_group, int_codes, regrouped
from quantbench.export.layouts.ct_inputs import input_scheme, input_tensors, precisely
from quantbench.export.layouts.ct_weights import scales_exact, weight_scheme, weight_tensors
from quantbench.export.reader import dequantized_at_once
from quantbench.export.saving import save_quantized
from quantbench.export.subject import (
    Equality,
    Reasons,
    Subject,
    Written,
    linear_layers,
    refuse_operations,
    remaining,
)
from quantbench.formats.int import IntFormat
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.pipeline.fused import fused_layers


class CompressedTensors:
    """Integers of 2 to 8 bits, fp8, NVFP4 and MX, with quantized inputs where engines compute them."""

    name: ClassVar[str] = "compressed-tensors"

    def check(self, subject: Subject) -> None:
        """Work out every layer's scheme."""
        reasons = Reasons(self.name)
        refuse_operations(subject, reasons, inputs=True)
        for name, _ in linear_layers(subject, reasons):
            reasons.attempt(name, partial(_scheme, subject, name, None))
        reasons.refuse(subject.run_id)
        _check_readable(subject, reasons)
        reasons.refuse(subject.run_id)

    def write(self, subject: Subject, folder: Path) -> Written:
        """Pack each layer; layers that are not quantized keep their tensors, and are named as ignored."""
        tensors = remaining(subject.model, subject.artifact.weights)
        schemes = _schemes(subject)
        for text, names in schemes.items():
            for name in names:
                packed = weight_tensors(subject.artifact.weights[name], json.loads(text), subject.dtype)
                if name in subject.inputs:
                    packed |= input_tensors(subject.inputs[name])
                tensors |= {f"{name}.{key}": value for key, value in packed.items()}
        save_quantized(subject.model, subject.tokenizer, tensors, quantization(subject.model, schemes), folder)
        return Written(_equality(subject), tuple(_notes(subject)))


def _scheme(subject: Subject, name: str, size: int | None) -> dict[str, Any]:
    op = subject.inputs.get(name)
    inputs = None if op is None else input_scheme(op)
    return weight_scheme(subject.artifact.weights[name], inputs, size)


def _schemes(subject: Subject) -> dict[str, list[str]]:
    """Each scheme as JSON text, with its layers."""
    found: dict[str, list[str]] = {}
    size = _common_group(subject)
    for name in subject.artifact.weights:
        found.setdefault(json.dumps(_scheme(subject, name, size), sort_keys=True), []).append(name)
    return found


def _check_readable(subject: Subject, reasons: Reasons) -> None:
    """Note what transformers cannot read of a file that is as it should be: nothing would prove it."""
    schemes = {text: json.loads(text) for text in _schemes(subject)}
    at_once = [one for one in schemes.values() if dequantized_at_once(one, str(subject.dtype).removeprefix("torch."))]
    if at_once and any(one["input_activations"] for one in schemes.values()):
        reasons.add(
            "transformers computes NVFP4 with quantized inputs in bfloat16 only. Exact: model.dtype=bfloat16",
            "the model",
        )
    elif at_once and len(schemes) > 1:
        reasons.add(
            "its layers have several schemes, of which transformers reads one at a time where it must dequantize "
            "at once (zero points, or fp4 and MX in another dtype than bfloat16). Exact: --to dense",
            "the model",
        )


def _integers(subject: Subject) -> dict[str, QuantizedWeight]:
    return {name: one for name, one in subject.artifact.weights.items() if isinstance(one.format, IntFormat)}


def _common_group(subject: Subject) -> int | None:
    """One group size for all integer layers: engines have kernels for one at a time."""
    found = [int_codes(weight) for weight in _integers(subject).values()]
    return common_group(found) if found else None


def quantization(model: nn.Module, schemes: Mapping[str, list[str]]) -> dict[str, Any]:
    """The configuration's quantization_config; schemes: as JSON text, with the layers of each.

    With one scheme its target is every nn.Linear that is not ignored, which is what engines are tried on.
    """
    quantized = {name for names in schemes.values() for name in names}
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    groups = {}
    for index, (text, names) in enumerate(schemes.items()):
        groups[f"group_{index}"] = json.loads(text) | {"targets": ["Linear"] if len(schemes) == 1 else names}
    formats = {group["format"] for group in groups.values()}
    return {
        "quant_method": "compressed-tensors",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": [name for name in linear if name not in quantized],
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def _equality(subject: Subject) -> Equality:
    if not all(precisely(op, subject.dtype) for op in subject.inputs.values()):
        return "engine"
    weights = subject.artifact.weights.values()
    return "exact" if all(scales_exact(weight, subject.dtype) for weight in weights) else "rounded"


def _notes(subject: Subject) -> list[str]:
    weights, integers = subject.artifact.weights, _integers(subject)
    found = regrouped(integers, _common_group(subject))
    dtype = str(subject.dtype).removeprefix("torch.")
    if any(dequantized_at_once(json.loads(text), dtype) for text in _schemes(subject)):
        found.append(
            "transformers 5.23 with compressed-tensors 0.20 reads packed zero points, and fp4 and MX in another dtype "
            "than bfloat16, only where it dequantizes at once: from_pretrained(FOLDER, "
            "quantization_config=CompressedTensorsConfig(dequantize=True)). So did the proof."
        )
    if not all(scales_exact(weight, subject.dtype) for weight in weights.values()):
        found.append(
            f"The file holds every scale exactly. transformers rounds them, or the weights of NVFP4, to {dtype} or "
            "bfloat16 when it reads them; for integers and fp8 a run with quantizer.weight.scale_dtype="
            f"{dtype} avoids that."
        )
    if not all(precisely(op, subject.dtype) for op in subject.inputs.values()):
        found.append(
            "Inputs are rounded by the engine, whose scales and ties may differ from the run's in the last digits: "
            "vLLM takes max|x| / 127 for eight bits (the recipes' narrow_range), transformers max|x| / 127.5 "
            "(full_range)."
        )
    apart = sum(_apart(weights, names) for names in fused_layers(weights))
    if apart:
        found.append(
            f"NVFP4: {apart} groups of layers that engines fuse (q, k and v; gate and up) have different global "
            "scales. vLLM takes the largest for all of a group, which changes what the others stand for; "
            "transformers computes them apart, as they are. A run with quantizer.weight.fused=true has one for each "
            "group."
        )
    return found


def _apart(weights: Mapping[str, Any], names: list[str]) -> bool:
    scales: list[Tensor | None] = [weights[name].params.global_scale for name in names]
    return len({float(scale[0, 0]) for scale in scales if scale is not None}) > 1
