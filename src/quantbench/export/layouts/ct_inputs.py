"""Quantized inputs of layers in the schemes of compressed-tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quantbench.export.codes import NotHeldError
from quantbench.formats.activation import FormatActivation
from quantbench.formats.int import IntActivation
from quantbench.formats.mx import MxFormat
from quantbench.formats.nvfp4 import Nvfp4Format
from quantbench.formats.scaled import ScaledFormat
from quantbench.pipeline.runtime import QuantizeInput

STATIC = "Exact: a run with activation@quantizer.activation=nvfp4_static"


def input_scheme(op: QuantizeInput) -> dict[str, Any]:
    """The arguments of a layer's inputs. Raises NotHeldError for what engines do not compute."""
    if op.keep is not None:
        raise NotHeldError("some channels of its inputs are kept in full precision. Not held by any format")
    form = op.format
    if isinstance(form, IntActivation | FormatActivation) and form.clip_ratio != 1:
        raise NotHeldError(
            f"activation.clip_ratio={form.clip_ratio}, and engines take the whole range. Exact: nothing; a run with "
            "quantizer.activation.clip_ratio=1.0"
        )
    if isinstance(form, IntActivation):
        if form.granularity == "tensor" and form.dynamic:
            raise NotHeldError("one scale for all tokens that are read at once. Exact: a run with granularity=token")
        args = _args(form.bits, "int", form.symmetric)
        return args | ({"strategy": "token", "dynamic": True} if form.dynamic else {"strategy": "tensor"})
    if isinstance(form, FormatActivation) and isinstance(form.format, ScaledFormat) and form.format.element == "e4m3":
        if form.format.group_size == "channel" and form.dynamic:
            return _args(8, "float") | {"strategy": "token", "dynamic": True}
        if form.format.group_size == "tensor" and not form.dynamic:
            return _args(8, "float") | {"strategy": "tensor"}
        raise NotHeldError("fp8 inputs with scales in groups. Exact: a run with format.group_size=channel")
    if isinstance(form, FormatActivation) and isinstance(form.format, Nvfp4Format):
        if form.dynamic:
            raise NotHeldError(
                f"NVFP4 inputs with a shared scale per token, and the file has a calibrated one. {STATIC}"
            )
        args = _args(4, "float") | {"strategy": "tensor_group", "group_size": 16, "dynamic": "local"}
        return args | {"scale_dtype": "torch.float8_e4m3fn"}
    if isinstance(form, FormatActivation) and isinstance(form.format, MxFormat):
        raise NotHeldError(
            "its inputs are in an MX format, whose scales engines choose by a rule of their own. Not held by any "
            "format; a run with quantizer.activation=null is"
        )
    raise NotHeldError(f"its inputs are in {_kind(form)}, which is none of its schemes. Not held by any format")


def input_tensors(op: QuantizeInput) -> dict[str, Tensor]:
    """What a layer stores of its inputs: the parameters of a static scheme."""
    if not op.params:
        return {}
    scale = op.params["scale"].float().reshape(1)
    if isinstance(op.format, FormatActivation) and isinstance(op.format.format, Nvfp4Format):
        return {"input_global_scale": 1 / scale}
    found = {"input_scale": scale}
    if (zero := op.params.get("zero")) is not None:
        assert isinstance(op.format, IntActivation)
        found["input_zero_point"] = (zero.reshape(1) - (1 << (op.format.bits - 1))).to(torch.int8)
    return found


def precisely(op: QuantizeInput, dtype: torch.dtype) -> bool:
    """Whether transformers computes the very inputs of the run: in float32, with the same scales and levels."""
    form = op.format
    if dtype != torch.float32:
        return False
    if isinstance(form, IntActivation):
        return form.symmetric and form.scale_convention == ("full_range" if form.dynamic else "twos_complement")
    return isinstance(form, FormatActivation) and isinstance(form.format, ScaledFormat)


def _args(bits: int, kind: str, symmetric: bool = True) -> dict[str, Any]:
    return {"num_bits": bits, "type": kind, "symmetric": symmetric, "dynamic": False}


def _kind(form: object) -> str:
    inner = getattr(form, "format", None)
    return type(form).__name__ + ("" if inner is None else f" of {type(inner).__name__}")
