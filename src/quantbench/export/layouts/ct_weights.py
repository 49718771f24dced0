"""Weights in the formats of compressed-tensors: the scheme of each in its configuration, and its tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quantbench.export.codes import NotHeldError, exact_in, int_codes, refuse_corrections
from quantbench.export.packing import pairs, rows_of_words
from quantbench.formats.int import IntFormat
from quantbench.formats.mx import MxFormat
from quantbench.formats.nvfp4 import Nvfp4Format
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.formats.scaled import ScaledFormat

Scheme = dict[str, Any]

_MX_FORMATS = {
    "e2m1": (4, "mxfp4-pack-quantized"),
    "e2m3": (6, "mxfp6-pack-quantized"),
    "e4m3": (8, "mxfp8-quantized"),
}
"""By element: bits, and the format that holds it."""


def weight_scheme(weight: QuantizedWeight, inputs: Scheme | None, size: int | None) -> Scheme:
    """The scheme of a layer without its targets; size: columns of an integer group, None for one scale a row.

    Raises NotHeldError, with what would be exact.
    """
    refuse_corrections(weight)
    kind = weight.format
    if isinstance(kind, IntFormat):
        if weight.group_index is not None:
            raise NotHeldError(
                "its groups follow the order of activations (act-order). Exact: --to gptq, or --to dense"
            )
        codes = int_codes(weight)
        args = _args(codes.bits, "int") | {"symmetric": codes.symmetric}
        args |= _by_channel() if size is None else {"strategy": "group", "group_size": size}
        if inputs is not None and inputs["type"] == "float":
            raise NotHeldError("integer weights with fp8 or fp4 inputs. Not held by any format")
        return _scheme("pack-quantized" if inputs is None else "int-quantized", args, inputs)
    if isinstance(kind, ScaledFormat):
        return _fp8_scheme(kind, weight, inputs)
    if isinstance(kind, MxFormat):
        return _mx_scheme(kind, weight, inputs)
    if isinstance(kind, Nvfp4Format):
        _whole_groups(weight, kind.group_size, 16)
        args = _args(4, "float") | {"strategy": "tensor_group", "group_size": 16, "scale_dtype": "torch.float8_e4m3fn"}
        if inputs is not None and inputs["strategy"] != "tensor_group":
            raise NotHeldError("NVFP4 weights with inputs in another format. Not held by any format")
        return _scheme("nvfp4-pack-quantized", args, inputs)
    raise NotHeldError(f"{type(kind).__name__} is none of its formats. Exact: --to dense")


def weight_tensors(weight: QuantizedWeight, scheme: Scheme, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of a layer by their names in it; dtype: the model's.

    Scales are written in the model's dtype where that is exact, else in float32.
    """
    params, form = weight.params, scheme["format"]
    if form in {"pack-quantized", "int-quantized"}:
        codes = int_codes(weight)
        if (size := scheme["weights"].get("group_size")) is not None:
            codes = codes.in_groups(size)
        scales = _stored(codes.scales, dtype)
        if form == "int-quantized":
            found = {"weight": codes.signed, "weight_scale": scales}
            return found if codes.symmetric else found | {"weight_zero_point": codes.signed_zeros}
        packed = {"weight_packed": rows_of_words(codes.levels, codes.bits), "weight_scale": scales}
        packed["weight_shape"] = torch.tensor(codes.levels.shape, dtype=torch.int64)
        if not codes.symmetric:
            packed["weight_zero_point"] = rows_of_words(codes.zeros.t().contiguous(), codes.bits).t().contiguous()
        return packed
    if form == "nvfp4-pack-quantized":
        assert params.global_scale is not None
        return {
            "weight_packed": pairs(weight.codes),
            "weight_scale": params.scale.to(torch.float8_e4m3fn),
            "weight_global_scale": (1 / params.global_scale[0, :1]).clone(),
        }
    if form == "mxfp4-pack-quantized":
        return {"weight_packed": pairs(weight.codes), "weight_scale": MxFormat.scales.encode(params.scale)}
    if form == "mxfp6-pack-quantized":  # without gaps: four in three bytes
        packed_bytes = rows_of_words(weight.codes, 6).view(torch.uint8)
        return {"weight_packed": packed_bytes, "weight_scale": MxFormat.scales.encode(params.scale)}
    elements = weight.codes.view(torch.float8_e4m3fn)
    if form == "mxfp8-quantized":
        return {"weight": elements, "weight_scale": MxFormat.scales.encode(params.scale)}
    assert isinstance(weight.format, ScaledFormat)
    blocks = weight.format.blocks.once(params).scale
    single = scheme["weights"]["strategy"] == "tensor"
    return {"weight": elements, "weight_scale": _stored(blocks.reshape(1) if single else blocks, dtype)}


def scales_exact(weight: QuantizedWeight, dtype: torch.dtype) -> bool:
    """Whether transformers makes of the tensors the values that the run has: it reads scales in the model's dtype."""
    if isinstance(weight.format, Nvfp4Format):
        return False
    return isinstance(weight.format, MxFormat) or exact_in(weight.params.scale, dtype)


def _fp8_scheme(kind: ScaledFormat, weight: QuantizedWeight, inputs: Scheme | None) -> Scheme:
    if kind.element != "e4m3":
        raise NotHeldError(f"{kind.element} is none of its formats, which have e4m3. Exact: --to dense")
    if inputs is not None and inputs["type"] != "float":
        raise NotHeldError("fp8 weights with integer inputs. Not held by any format")
    if inputs is not None and inputs["num_bits"] != 8:
        raise NotHeldError("fp8 weights with inputs of four bits. Not held by any format")
    args = _args(8, "float")
    if kind.group_size == "tensor":
        args |= {"strategy": "tensor"}
    elif kind.block_rows != 1:
        columns = kind.columns_per_group(weight.codes.shape[1])
        args |= {"strategy": "block", "block_structure": [kind.block_rows, columns]}
    elif kind.group_size == "channel" or weight.params.scale.shape[1] == 1:
        args |= _by_channel()
    else:
        _whole_groups(weight, kind.group_size, None)
        args |= {"strategy": "group", "group_size": kind.group_size}
    return _scheme("naive-quantized" if inputs is None else "float-quantized", args, inputs)


def _mx_scheme(kind: MxFormat, weight: QuantizedWeight, inputs: Scheme | None) -> Scheme:
    if kind.element not in _MX_FORMATS:
        known = ", ".join(_MX_FORMATS)
        raise NotHeldError(f"MX with {kind.element} elements is none of its formats ({known}). Exact: --to dense")
    if inputs is not None:
        raise NotHeldError("MX weights with quantized inputs. Not held by any format")
    _whole_groups(weight, kind.group_size, 32)
    bits, form = _MX_FORMATS[kind.element]
    args = _args(bits, "float") | {"strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}
    return _scheme(form, args, None)


def _whole_groups(weight: QuantizedWeight, size: int, wanted: int | None) -> None:
    width = weight.codes.shape[1]
    if wanted is not None and size != wanted:
        raise NotHeldError(f"groups of {size}, and the format has groups of {wanted}. Exact: --to dense")
    if width % size:
        raise NotHeldError(
            f"its width {width} is no multiple of the group size {size}. Exact: --to dense, or a run whose "
            f"quantizer.policy.keep leaves such layers in full precision"
        )


def _stored(scales: Tensor, dtype: torch.dtype) -> Tensor:
    return scales.to(dtype if exact_in(scales, dtype) else torch.float32).contiguous()


def _args(bits: int, kind: str) -> Scheme:
    return {"num_bits": bits, "type": kind, "symmetric": True, "dynamic": False}


def _by_channel() -> Scheme:
    return {"strategy": "channel"}


def _scheme(form: str, weights: Scheme, inputs: Scheme | None) -> Scheme:
    return {"format": form, "weights": weights, "input_activations": inputs, "output_activations": None}
