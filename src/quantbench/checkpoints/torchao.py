"""Files of torchao as transformers writes them: its tensors taken apart, and described in the files' metadata.

    _weight_qdata       int8 or float8_e4m3fn [out, in]
    _weight_scale       float [out / r, in / c]: blocks of r x c weights share a scale, block_size = [r, c]
    _weight_zero_point  int8 as the scales, of integers only

weight = (qdata - zero_point) * scale. Integers of fewer than 8 bits take a byte each, so that the file has 8 bits a
weight and its scales. Of the metadata, "LAYER.weight" is JSON: the class of the tensor ("_type") and its attributes
("_data"). Source: torchao 0.18, torchao.prototype.safetensors, and its Int8Tensor, IntxUnpackedToInt8Tensor and
Float8Tensor. Classes that are packed for the kernels of one device are not read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantbench.checkpoints.inputs import fp8
from quantbench.checkpoints.layout import FLOATS, Header, InputQuantization, Part, Parts
from quantbench.core.errors import ModelError
from quantbench.formats.activation import FormatActivation
from quantbench.formats.base import ActivationFormat
from quantbench.formats.int import IntActivation

if TYPE_CHECKING:
    from torch import Tensor

_INTX_INPUTS = "IntxUnpackedToInt8TensorActivationQuantization"
_CODES = {"Int8Tensor": "I8", "IntxUnpackedToInt8Tensor": "I8", "Float8Tensor": "F8_E4M3"}
_PLAIN = "Tensor"


@dataclass(frozen=True)
class _Stored:
    """How one weight is stored: the class of its tensor, rows and columns that share a scale, and its inputs' grid."""

    kind: str
    block: tuple[int, int]
    inputs: ActivationFormat | None

    @classmethod
    def of(cls, name: str, described: Any) -> _Stored:
        """From what the metadata says. Raises ModelError for what is not read."""
        if not isinstance(described, Mapping):
            raise ModelError(f"{name}: its torchao metadata is {str(described)[:80]!r}: expected a mapping")
        kind, data = described.get("_type"), described.get("_data")
        if not isinstance(kind, str) or kind not in _CODES:
            raise ModelError(
                f"{name}: torchao's {kind} is not read; quantbench reads {', '.join(_CODES)}: save it as one of these, "
                "or as compressed-tensors or GPTQ"
            )
        block = _inner(data, "block_size")
        if not (isinstance(block, list) and len(block) == 2 and all(type(n) is int and n > 0 for n in block)):
            raise ModelError(f"{name}: block_size={block!r} of its torchao metadata: expected two numbers")
        return cls(kind, (block[0], block[1]), _inputs(name, kind, data))


@dataclass(frozen=True)
class TorchAo:
    """stored: how each quantized layer's weight is stored, by the layer's name."""

    stored: Mapping[str, _Stored]

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> TorchAo:
        """From the metadata of the safetensors files. Raises ModelError for what is not read."""
        listed = _json("tensor_names", metadata.get("tensor_names", "[]"))
        names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
        described = {name: _json(name, metadata.get(name, "{}")) for name in names}
        quantized = {name: one for name, one in described.items() if _inner(one, "_type") != _PLAIN}
        if not quantized:
            raise ModelError(
                "quantization_config.quant_method='torchao', but the metadata of the safetensors files describes no "
                "quantized tensor: torchao 0.15 and newer write them so"
            )
        if odd := next((name for name in quantized if not name.endswith(".weight")), None):
            raise ModelError(f"{odd} is quantized by torchao and no weight of a linear layer: it is not read")
        return cls({name.removesuffix(".weight"): _Stored.of(name, one) for name, one in quantized.items()})

    @property
    def name(self) -> str:
        """The classes of its tensors."""
        return f"torchao ({', '.join(sorted({one.kind for one in self.stored.values()}))})"

    def quantized(self, layer: str, present: Mapping[str, Header]) -> bool:
        """Whether the metadata says so."""
        return layer in self.stored

    def parts(self, layer: str, shape: tuple[int, int], present: Mapping[str, Header]) -> Mapping[str, Part]:
        """Codes, scales, and zero points of integers."""
        one = self.stored[layer]
        (rows, columns), (tall, wide) = shape, one.block
        if rows % tall or columns % wide:
            raise ModelError(f"{layer}: blocks of {tall} x {wide} do not divide the base model's weight {list(shape)}")
        scales = [(rows // tall, columns // wide)]
        found = {"_weight_qdata": Part([shape], [_CODES[one.kind]]), "_weight_scale": Part(scales, FLOATS)}
        if one.kind == "Float8Tensor":
            return found
        return found | {"_weight_zero_point": Part(scales, ["I8"], optional=True)}

    def dequantize(self, layer: str, shape: tuple[int, int], parts: Parts) -> Tensor:
        """Each code less its zero point, times its scale."""
        tall, wide = self.stored[layer].block

        def spread(values: Tensor) -> Tensor:
            return values.float().repeat_interleave(tall, 0).repeat_interleave(wide, 1)

        codes = parts["_weight_qdata"].float()
        zero = parts.get("_weight_zero_point")
        if zero is not None:
            codes = codes - spread(zero)
        return codes * spread(parts["_weight_scale"])

    def input_quantization(self, layer: str, parts: Parts) -> InputQuantization | None:
        """By token, as the model runs, or not at all."""
        grid = self.stored[layer].inputs
        return None if grid is None else InputQuantization(grid, {})


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name}: its torchao metadata cannot be read as JSON: {error}") from error


def _inputs(name: str, kind: str, data: Any) -> ActivationFormat | None:
    """How the inputs of a layer are quantized. Raises ModelError for a way that is not read."""
    if kind == "IntxUnpackedToInt8Tensor":
        asked = _inner(data, "activation_quantization")
        if asked is None:
            return None
        if asked in ("int8_asym_per_token", {"_type": _INTX_INPUTS, "_data": "INT8_ASYM_PER_TOKEN"}):
            return _by_token(symmetric=False)
        raise ModelError(f"{name}: torchao's activation_quantization={asked!r} is not read: int8_asym_per_token is")
    given = _inner(data, "act_quant_kwargs")
    if given is None:
        return None
    way, settings = _inner(given, "_type"), _inner(given, "_data")
    granularity = _inner(settings, "granularity")
    by_token = _inner(granularity, "_type") == "PerRow" and _inner(_inner(granularity, "_data"), "dim") in (None, -1)
    if by_token and way == "QuantizeTensorToInt8Kwargs" and not _inner(settings, "reduce_range"):
        mapping = _inner(_inner(settings, "mapping_type"), "_data")
        if mapping in ("SYMMETRIC", "ASYMMETRIC"):
            return _by_token(symmetric=mapping == "SYMMETRIC")
    if by_token and way == "QuantizeTensorToFloat8Kwargs":
        unbounded = _inner(settings, "hp_value_lb") is None and _inner(settings, "hp_value_ub") is None
        if unbounded and _inner(_inner(settings, "float8_dtype"), "_data") in (None, "float8_e4m3fn"):
            return FormatActivation(format=fp8("channel"), dynamic=True)
    raise ModelError(
        f"{name}: torchao's act_quant_kwargs={json.dumps(given)[:200]} are not read: int8 and e4m3 with a scale for "
        "each token (PerRow), taken as the model runs, are"
    )


def _inner(value: Any, key: str) -> Any:
    """What a mapping has under a key; None where it is no mapping."""
    return value.get(key) if isinstance(value, Mapping) else None


def _by_token(*, symmetric: bool) -> IntActivation:
    """Eight bits with the whole range of the codes: symmetric scales are max|x| / 127.5."""
    return IntActivation(
        bits=8,
        symmetric=symmetric,
        scale_convention="full_range" if symmetric else None,
        granularity="token",
        dynamic=True,
    )
