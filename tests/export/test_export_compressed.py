"""compressed-tensors: each layer's tensors and schemes, judged by the package's own code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from exported import integers, rounded, weight
from quantbench.checkpoints.compressed_tensors import CompressedTensors
from quantbench.checkpoints.layout import Header
from quantbench.export.codes import NotHeldError
from quantbench.export.layouts.compressed_tensors import quantization
from quantbench.export.layouts.ct_inputs import input_scheme, input_tensors
from quantbench.export.layouts.ct_weights import weight_scheme, weight_tensors
from quantbench.export.reader import dequantized_at_once
from quantbench.formats.activation import FormatActivation
from quantbench.formats.base import ActivationFormat, Format
from quantbench.formats.int import IntActivation
from quantbench.formats.mx import MxFormat
from quantbench.formats.nvfp4 import Nvfp4Format
from quantbench.formats.scaled import ScaledFormat
from quantbench.pipeline.runtime import QuantizeInput

compressed_tensors = pytest.importorskip(
    "compressed_tensors", reason="compressed-tensors is not installed: pip install -e '.[export]'"
)


def fp8(group_size: Any = "channel", **options: Any) -> ScaledFormat:
    return ScaledFormat(element="e4m3", group_size=group_size, scale_dtype="float32", **options)


FORMATS: dict[str, tuple[Format, int | None, str]] = {
    "int2": (integers(2, False), 32, "pack-quantized"),
    "int3 asymmetric": (integers(3, False, 16), 16, "pack-quantized"),
    "int4": (integers(4, True), 32, "pack-quantized"),
    "int4 asymmetric": (integers(4, False), 32, "pack-quantized"),
    "int4 in short groups": (integers(4, False, 48), 16, "pack-quantized"),
    "int5 by channel": (integers(5, False, "channel"), None, "pack-quantized"),
    "int8 by channel": (integers(8, True, "channel"), None, "pack-quantized"),
    "fp8 by channel": (fp8(), None, "naive-quantized"),
    "fp8 by tensor": (fp8("tensor"), None, "naive-quantized"),
    "fp8 in blocks": (fp8(32, block_rows=16), None, "naive-quantized"),
    "fp8 in groups": (fp8(16), None, "naive-quantized"),
    "mxfp4": (MxFormat(element="e2m1"), None, "mxfp4-pack-quantized"),
    "mxfp6": (MxFormat(element="e2m3"), None, "mxfp6-pack-quantized"),
    "mxfp8": (MxFormat(element="e4m3"), None, "mxfp8-quantized"),
}

NAMES = {
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.float8_e4m3fn: "F8_E4M3",
}

TOKEN8 = IntActivation(bits=8, symmetric=True, scale_convention="full_range", granularity="token", dynamic=True)
STATIC8 = IntActivation(bits=8, symmetric=False, granularity="tensor", dynamic=False)


def scheme_of(plain: dict[str, Any]) -> Any:
    from compressed_tensors.quantization import QuantizationScheme

    return QuantizationScheme.model_validate(plain | {"targets": ["Linear"]})


def decompressed(tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> torch.Tensor:
    from compressed_tensors.compressors import BaseCompressor

    compressor = BaseCompressor.get_value_from_registry(plain["format"])
    found: torch.Tensor = compressor.decompress(tensors, scheme_of(plain))["weight"]
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_the_package_reads_the_very_values(name: str) -> None:
    from compressed_tensors.compressors.format import infer_module_format

    kind, size, form = FORMATS[name]
    quantized = rounded(kind)
    plain = weight_scheme(quantized, None, size)
    assert plain["format"] == form == infer_module_format(nn.Linear, scheme_of(plain)).value
    read = decompressed(weight_tensors(quantized, plain, torch.float32), plain)
    assert torch.equal(read.float(), quantized.dequantize())


@pytest.mark.parametrize("name", FORMATS)
def test_a_checkpoint_of_it_is_read_as_the_very_values(name: str) -> None:
    kind, size, _ = FORMATS[name]
    quantized = rounded(kind)
    plain = weight_scheme(quantized, None, size)
    tensors = weight_tensors(quantized, plain, torch.float32)
    layout = CompressedTensors.of({"config_groups": {"group_0": {**plain, "targets": ["Linear"]}}})
    rows, columns = quantized.codes.shape
    shape = (rows, columns)
    headers = {key: Header(NAMES[t.dtype], tuple(t.shape), t.nbytes) for key, t in tensors.items()}
    wanted = layout.parts("layer", shape, headers)
    assert not [problem for key, one in headers.items() if (problem := wanted[key].problem(one))]
    assert torch.equal(layout.dequantize("layer", shape, tensors), quantized.dequantize())


def test_the_package_divides_by_nvfp4s_global_scale() -> None:
    quantized = rounded(Nvfp4Format())
    plain = weight_scheme(quantized, None, None)
    tensors = weight_tensors(quantized, plain, torch.float32)
    assert quantized.params.global_scale is not None
    assert torch.equal(tensors["weight_global_scale"], 1 / quantized.params.global_scale[0, :1])
    read = decompressed(tensors, plain)
    assert torch.allclose(read.float(), quantized.dequantize(), rtol=2**-8, atol=0)  # the package rounds to bfloat16
    assert read.dtype == torch.bfloat16


def test_bfloat16_models_get_the_same_bits_where_scales_are_bfloat16() -> None:
    quantized = rounded(integers(4, False, scale_dtype="bfloat16"))
    plain = weight_scheme(quantized, None, 32)
    tensors = weight_tensors(quantized, plain, torch.bfloat16)
    assert tensors["weight_scale"].dtype == torch.bfloat16
    assert torch.equal(decompressed(tensors, plain), quantized.dequantize().bfloat16())
    wider = rounded(integers(4, False))
    assert weight_tensors(wider, plain, torch.bfloat16)["weight_scale"].dtype == torch.float32


@pytest.mark.parametrize(
    ("form", "params", "strategy"),
    [
        (TOKEN8, {}, "token"),
        (STATIC8, {"scale": 0.02, "zero": 130.0}, "tensor"),
        (FormatActivation(format=fp8(), dynamic=True), {}, "token"),
        (FormatActivation(format=fp8("tensor"), dynamic=False), {"scale": 0.01}, "tensor"),
    ],
)
def test_the_package_rounds_inputs_as_the_run_does(
    form: ActivationFormat, params: dict[str, float], strategy: str
) -> None:
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import forward_quantize

    given = {name: torch.tensor(value) for name, value in params.items()}
    op = QuantizeInput(module="a", format=form, params=given)
    args = input_scheme(op)
    assert args["strategy"] == strategy
    module = nn.Linear(64, 32)
    from compressed_tensors.quantization import QuantizationStatus

    module.quantization_status = QuantizationStatus.FROZEN
    for name, value in input_tensors(op).items():
        module.register_buffer(name, value)
    x = weight(5)[None]
    theirs = forward_quantize(module, x.clone(), "input", QuantizationArgs.model_validate(args))
    ours = form.fake_quantize(x, given.get("scale"), given.get("zero"))
    assert torch.equal(theirs, ours)


def test_inputs_that_engines_do_not_round_are_refused() -> None:
    for form, problem in (
        (FormatActivation(format=Nvfp4Format(), dynamic=True), "activation=nvfp4_static"),
        (FormatActivation(format=MxFormat(element="e2m1"), dynamic=True), "a rule of their own"),
        (IntActivation(bits=8, symmetric=False, granularity="token", dynamic=True, clip_ratio=0.9), "clip_ratio=0.9"),
        (IntActivation(bits=8, symmetric=False, granularity="tensor", dynamic=True), "granularity=token"),
    ):
        with pytest.raises(NotHeldError, match=problem):
            input_scheme(QuantizeInput(module="a", format=form))
    with pytest.raises(NotHeldError, match="channels of its inputs"):
        input_scheme(QuantizeInput(module="a", format=TOKEN8, keep=torch.tensor([1])))


def test_weights_that_it_has_no_format_for_are_refused() -> None:
    for kind, problem in (
        (ScaledFormat(element="nf4", group_size=64), "nf4 is none of its formats"),
        (MxFormat(element="int8"), "int8 elements"),
        (MxFormat(element="e2m1", group_size=16), "groups of 16, and the format has groups of 32"),
    ):
        with pytest.raises(NotHeldError, match=problem):
            weight_scheme(rounded(kind), None, None)
    with pytest.raises(NotHeldError, match="width 48 is no multiple of the group size 32"):
        weight_scheme(rounded(MxFormat(element="e2m1"), width=48), None, None)


def test_the_configuration_is_the_packages_and_names_what_is_ignored() -> None:
    from compressed_tensors.quantization import QuantizationConfig

    model = nn.Sequential()
    for name in ("a", "b", "c"):
        model.add_module(name, nn.Linear(64, 32))
    one = weight_scheme(rounded(integers(4, True)), None, 32)
    two = weight_scheme(rounded(integers(8, True)), input_scheme(QuantizeInput(module="b", format=TOKEN8)), 32)
    import json

    alone = quantization(model, {json.dumps(one): ["a", "b"]})
    assert (alone["config_groups"]["group_0"]["targets"], alone["ignore"]) == (["Linear"], ["c"])
    both = quantization(model, {json.dumps(one): ["a"], json.dumps(two): ["b"]})
    assert (both["format"], both["ignore"]) == ("mixed-precision", ["c"])
    assert [group["targets"] for group in both["config_groups"].values()] == [["a"], ["b"]]
    for plain in (alone, both):
        assert QuantizationConfig.model_validate(plain).ignore == ["c"]


def test_zero_points_and_small_floats_are_read_by_dequantizing_at_once() -> None:
    asymmetric, symmetric = (weight_scheme(rounded(integers(4, one)), None, 32) for one in (False, True))
    assert dequantized_at_once(asymmetric, "bfloat16")
    assert not dequantized_at_once(symmetric, "bfloat16")
    nvfp4 = weight_scheme(rounded(Nvfp4Format()), None, None)
    assert [dequantized_at_once(nvfp4, dtype) for dtype in ("bfloat16", "float32")] == [False, True]
