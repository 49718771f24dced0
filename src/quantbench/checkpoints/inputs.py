"""Inputs of layers that a checkpoint's configuration quantizes, as the activation formats of quantbench."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantbench.checkpoints.layout import InputQuantization, Parts
from quantbench.checkpoints.scheme import Scheme
from quantbench.core.errors import ModelError
from quantbench.core.lazy import lazy_module
from quantbench.formats.activation import FormatActivation
from quantbench.formats.int import IntActivation
from quantbench.formats.nvfp4 import Nvfp4Format
from quantbench.formats.scaled import ScaledFormat

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


def input_quantization(scheme: Scheme, parts: Parts) -> InputQuantization:
    """What `input_activations` of compressed-tensors does to the input of a layer.

    Dynamic scales are taken as the model runs; static ones stand in the file, as input_scale (integers and fp8) or
    input_global_scale (NVFP4, whose group scales are always taken as it runs).
    Raises ModelError for a scheme that no activation format of quantbench computes exactly.
    """
    if scheme.type == "int":
        return _integers(scheme, parts)
    if not scheme.symmetric:
        raise _unknown(scheme)
    if scheme.bits == 8 and scheme.strategy == "token":
        return InputQuantization(FormatActivation(format=fp8("channel"), dynamic=True), {})
    if scheme.bits == 8 and scheme.strategy == "tensor" and not scheme.dynamic:
        scale = _scalar(parts, "input_scale")
        return InputQuantization(FormatActivation(format=fp8("tensor"), dynamic=False), {"scale": scale})
    # Groups of 32 are an MX format, whose exponents compressed-tensors rounds by a rule of its own, not the standard's.
    if scheme.bits == 8 and scheme.strategy == "group" and scheme.dynamic and scheme.group_size not in (None, 32):
        return InputQuantization(FormatActivation(format=fp8(scheme.group_size or 128), dynamic=True), {})
    if scheme.bits == 4 and scheme.strategy == "tensor_group" and scheme.group_size == 16:
        given = 1 / _scalar(parts, "input_global_scale")  # stored as its inverse
        return InputQuantization(FormatActivation(format=Nvfp4Format(), dynamic=False), {"scale": given})
    raise _unknown(scheme)


def fp8(group_size: int | str) -> ScaledFormat:
    """e4m3 with a scale for each group of a token, each token ("channel"), or all ("tensor")."""
    return ScaledFormat(element="e4m3", group_size=group_size)  # type: ignore[arg-type]


def _integers(scheme: Scheme, parts: Parts) -> InputQuantization:
    """Symmetric scales are max|x| / (2^b - 1) * 2: the whole range of the codes is used."""
    convention = "full_range" if scheme.symmetric else None
    if scheme.strategy == "token" and scheme.dynamic:
        grid = IntActivation(
            bits=scheme.bits,
            symmetric=scheme.symmetric,
            scale_convention=convention,  # type: ignore[arg-type]
            granularity="token",
            dynamic=True,
        )
        return InputQuantization(grid, {})
    if scheme.strategy == "tensor" and not scheme.dynamic:
        grid = IntActivation(
            bits=scheme.bits,
            symmetric=scheme.symmetric,
            scale_convention=convention,  # type: ignore[arg-type]
            granularity="tensor",
            dynamic=False,
        )
        params = {"scale": _scalar(parts, "input_scale")}
        if not scheme.symmetric:  # stored for codes from -2^(b-1), ours begin at 0
            params["zero"] = _scalar(parts, "input_zero_point") + 2 ** (scheme.bits - 1)
        return InputQuantization(grid, params)
    raise _unknown(scheme)


def _scalar(parts: Parts, key: str) -> Tensor:
    found = parts.get(key)
    if found is None:
        raise ModelError(f"the configuration quantizes inputs with a fixed scale, but the file has no {key}")
    return found.float().reshape(())


def _unknown(scheme: Scheme) -> ModelError:
    how = "taken as the model runs" if scheme.dynamic else "fixed"
    return ModelError(
        f"quantization_config: inputs as {scheme.name}, {how}, are not read; quantbench reads int (token dynamic, "
        "tensor static), fp8 (token or group dynamic, tensor static) and NVFP4 with a fixed global scale"
    )
