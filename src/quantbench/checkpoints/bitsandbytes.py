"""bitsandbytes files: 4-bit tables (nf4, fp4) in blocks of the flattened weight, and int8 by row (LLM.int8()).

4 bits, for a weight [out, in] taken as one row of n = out in values, in blocks of B (usually 64):

    weight                      uint8 [n / 2, 1], two codes a byte, the higher half first
    weight.quant_map            float32 [16], the values of the codes
    weight.absmax               float32 [n / B]; with double quantization uint8, codes of the next two:
    weight.nested_quant_map     float32 [256]
    weight.nested_absmax        float32 [n / B / nested_blocksize]
    weight.quant_state.bitsandbytes__nf4 (or __fp4)   JSON as bytes: blocksize, shape, nested_blocksize, nested_offset

    w_i = quant_map[code_i] absmax[i // B]
    absmax_j = nested_quant_map[code_j] nested_absmax[j // nested_blocksize] + nested_offset

8 bits: weight int8 [out, in], SCB float32 [out], weight_format uint8 [] (0: by rows):   w = q SCB / 127.
Inputs are quantized to int8 per token there, but for features with an outlier beyond llm_int8_threshold (6.0).

Source: `QuantState.as_dict` and `Linear8bitLt` of bitsandbytes (0.4x to 0.50); QLoRA, arXiv 2305.14314; LLM.int8(),
arXiv 2208.07339.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantbench.checkpoints.layout import Header, InputQuantization, Part, Parts, Shape
from quantbench.core.errors import ModelError
from quantbench.core.lazy import lazy_module
from quantbench.formats.int import IntActivation
from quantbench.formats.outlier_activation import OutlierActivation

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

_STATE = "weight.quant_state.bitsandbytes__"


@dataclass(frozen=True)
class BitsAndBytes:
    """kind: nf4, fp4 or int8; threshold: beyond which a feature of an input of int8 is an outlier, 0: none is."""

    kind: str
    threshold: float

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> BitsAndBytes:
        """From the quantization_config of a config.json. Raises ModelError for a key that cannot be read."""
        four, eight = bool(config.get("load_in_4bit")), bool(config.get("load_in_8bit"))
        if four == eight:
            raise ModelError("quantization_config: expected one of load_in_4bit and load_in_8bit to be true")
        kind = str(config.get("bnb_4bit_quant_type", "fp4")) if four else "int8"
        if kind not in ("nf4", "fp4", "int8"):
            raise ModelError(f"quantization_config.bnb_4bit_quant_type={kind!r}: quantbench reads nf4, fp4")
        threshold = config.get("llm_int8_threshold", 6.0)
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or threshold < 0:
            raise ModelError(f"quantization_config.llm_int8_threshold={threshold!r}: expected a number from 0")
        return cls(kind, float(threshold))

    @property
    def name(self) -> str:
        """bitsandbytes, and the numbers."""
        return f"bitsandbytes {self.kind}"

    def quantized(self, layer: str, present: Mapping[str, Header]) -> bool:
        """Whether there are scales."""
        return ("SCB" if self.kind == "int8" else "weight.absmax") in present

    def parts(self, layer: str, shape: tuple[int, int], present: Mapping[str, Header]) -> Mapping[str, Part]:
        """The tensors; how long those of blocks are is checked when the block size, which a tensor holds, is read."""
        rows, columns = shape
        if self.kind == "int8":
            return {
                "weight": Part([shape], ["I8"]),
                "SCB": Part([(rows,)], ["F32"]),
                "weight_format": Part([(), (1,)], ["U8"], optional=True),
            }
        nested = "weight.nested_absmax" in present
        any_length = [present[key].shape for key in ("weight.absmax",)]
        found = {
            "weight": Part([(rows * columns // 2, 1), (1, rows * columns // 2)], ["U8"]),
            "weight.absmax": Part(any_length, ["U8"] if nested else ["F32"]),
            "weight.quant_map": Part([(16,)], ["F32"]),
            f"{_STATE}{self.kind}": Part(_shape(present, f"{_STATE}{self.kind}"), ["U8"]),
        }
        if nested:
            found["weight.nested_absmax"] = Part(_shape(present, "weight.nested_absmax"), ["F32"])
            found["weight.nested_quant_map"] = Part([(256,)], ["F32"])
        return found

    def dequantize(self, layer: str, shape: tuple[int, int], parts: Parts) -> Tensor:
        """The weight, by the formulas above. Raises ModelError for a state that contradicts the tensors."""
        if self.kind == "int8":
            order = parts.get("weight_format")
            if order is not None and int(order.reshape(())) != 0:
                raise ModelError(
                    f"{layer}.weight_format is {int(order.reshape(()))}: a layout of single GPUs; save it with a newer "
                    "bitsandbytes, which writes rows (0)"
                )
            return parts["weight"].float() * (parts["SCB"].float() / 127)[:, None]
        state = _state(layer, parts[f"{_STATE}{self.kind}"])
        block, absmax = _number(layer, state, "blocksize"), parts["weight.absmax"]
        if tuple(state.get("shape") or ()) not in (shape, ()):
            raise ModelError(f"{layer}: its quant_state says shape {state['shape']}, the base model's is {list(shape)}")
        if "weight.nested_absmax" in parts:
            outer, offset = parts["weight.nested_absmax"], float(state.get("nested_offset", 0.0))
            wide = _spread(layer, outer, _number(layer, state, "nested_blocksize"), absmax.numel())
            absmax = parts["weight.nested_quant_map"][absmax.long()] * wide + offset
        packed = parts["weight"].reshape(-1)
        codes = torch.stack([packed >> 4, packed & 15], dim=1).reshape(-1)
        values = parts["weight.quant_map"].float()[codes.long()]
        return (values * _spread(layer, absmax.float(), block, values.numel())).reshape(shape)

    def input_quantization(self, layer: str, parts: Parts) -> InputQuantization | None:
        """int8 per token around the outliers, for int8; None for 4 bits."""
        if self.kind != "int8":
            return None
        inner = IntActivation(
            bits=8, symmetric=True, scale_convention="narrow_range", granularity="token", dynamic=True
        )
        if not self.threshold:
            return InputQuantization(inner, {})
        return InputQuantization(OutlierActivation(inner=inner, threshold=self.threshold), {})


def _shape(present: Mapping[str, Header], key: str) -> list[Shape]:
    return [present[key].shape] if key in present else []


def _spread(layer: str, scales: Tensor, block: int, count: int) -> Tensor:
    if scales.numel() != -(-count // block):
        raise ModelError(
            f"{layer}: {scales.numel()} scales for {count} values in blocks of {block}: the file is damaged"
        )
    return scales.reshape(-1).repeat_interleave(block)[:count]


def _state(layer: str, stored: Tensor) -> Mapping[str, Any]:
    try:
        found = json.loads(bytes(stored.tolist()).decode("utf-8"))
    except ValueError as error:
        raise ModelError(f"{layer}: its quant_state cannot be read as JSON: {error}") from error
    if not isinstance(found, Mapping):
        raise ModelError(f"{layer}: its quant_state is no mapping")
    return found


def _number(layer: str, state: Mapping[str, Any], key: str) -> int:
    value = state.get(key)
    if not isinstance(value, int) or value < 1:
        raise ModelError(f"{layer}: its quant_state has {key}={value!r}: expected a number from 1")
    return value
