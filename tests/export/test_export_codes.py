"""Integer weights in the groups that files have, and the layouts of other packages, read by their own code."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from exported import integers, rounded, weight
from quantbench.export.codes import NotHeldError, common_group, int_codes, regrouped
from quantbench.export.ggml_blocks import int_blocks, int_kind, mx_blocks
from quantbench.export.layouts.awq import pack_awq
from quantbench.export.layouts.gptq import pack_gptq
from quantbench.export.packing import pairs, rows_of_words
from quantbench.formats.corrections import Outliers
from quantbench.formats.mx import MxFormat
from quantbench.formats.quantized_weight import QuantizedWeight


@pytest.mark.parametrize(("fitted", "width", "size"), [(32, 64, 32), (48, 64, 16), (128, 64, 64), ("channel", 64, 64)])
def test_groups_that_do_not_divide_the_width_become_smaller_ones_of_the_same_values(
    fitted: Any, width: int, size: int
) -> None:
    quantized = rounded(integers(4, False, fitted), width=width)
    codes = int_codes(quantized)
    assert (codes.group_size, codes.scales.shape) == (size, (32, width // size))
    for one in (codes, codes.in_groups(16)):
        zeros, scales = (t.repeat_interleave(one.group_size, dim=1) for t in (one.zeros.float(), one.scales))
        assert torch.equal((one.levels.float() - zeros) * scales, quantized.dequantize())
    assert codes.by_channel == (size == width)


def test_several_layers_are_written_in_one_group_size_and_that_is_said() -> None:
    layers = {"a": rounded(integers(4, False, 48), width=96), "b": rounded(integers(4, False, 48), width=64)}
    assert common_group([int_codes(one) for one in layers.values()]) == 16
    assert regrouped(layers, 16)[0].startswith("Groups of 48 columns are written as groups of 16 with repeated scales")
    assert regrouped(layers, 48) == regrouped(layers, None) == []
    assert common_group([int_codes(rounded(integers(8, True, "channel")))]) is None


def test_one_scale_in_all_and_blocks_of_rows_are_spread_over_rows() -> None:
    for kind in (integers(8, True, "tensor"), integers(4, False, 32, block_rows=4)):
        quantized = rounded(kind)
        codes = int_codes(quantized)
        columns = torch.arange(64) // codes.group_size
        values = (codes.levels.float() - codes.zeros.float()[:, columns]) * codes.scales[:, columns]
        assert torch.equal(values, quantized.dequantize())


def test_what_integers_do_not_hold_is_refused_with_what_would_be_exact() -> None:
    plain = rounded(integers(4, False))
    outliers = Outliers.of(weight(), weight().abs() > 2)
    kept = QuantizedWeight(plain.codes, plain.params, plain.format, corrections=(outliers,))
    with pytest.raises(NotHeldError, match=r"kept beside the codes \(Outliers\)\. Exact: --to dense"):
        int_codes(kept)
    with pytest.raises(NotHeldError, match=r"zero points are real numbers.*quantizer\.weight\.zero_rounding=true"):
        int_codes(rounded(integers(4, False, zero_rounding=False)))
    with pytest.raises(NotHeldError, match="MxFormat is no grid of integers"):
        int_codes(rounded(MxFormat(element="e2m1")))
    with pytest.raises(NotHeldError, match="8 bits and zero points"):
        int_kind(8, symmetric=False)


def test_words_hold_a_stream_of_bits_from_the_lowest_up() -> None:
    codes = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 9]], dtype=torch.uint8)
    words = rows_of_words(codes, 4).view(torch.uint8).reshape(-1).tolist()
    assert words == [0x21, 0x43, 0x65, 0x87, 9, 0, 0, 0]
    three = rows_of_words(torch.full((1, 32), 5, dtype=torch.uint8), 3)
    assert three.shape == (1, 3)
    stream = "".join(f"{word & 0xFFFFFFFF:032b}" for word in reversed(three[0].tolist()))
    assert {stream[i : i + 3] for i in range(0, 96, 3)} == {"101"}
    assert pairs(torch.tensor([[1, 15]], dtype=torch.uint8)).tolist() == [[0xF1]]


@pytest.mark.parametrize(
    ("bits", "symmetric"), [(3, True), (4, True), (3, False), (4, False), (5, True), (8, True), (7, False)]
)
def test_ggmls_own_code_reads_the_very_values_of_integers(bits: int, symmetric: bool) -> None:
    quantized = rounded(integers(bits, symmetric, 64))
    kind = int_kind(bits, symmetric)
    needed = bits + (not symmetric)
    assert kind == ("Q4_0" if needed <= 4 else "Q5_0" if needed == 5 else "Q8_0")
    blocks = int_blocks(int_codes(quantized).in_groups(32), kind)
    read = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind])
    assert np.array_equal(read, quantized.dequantize().numpy())


def test_ggmls_own_code_reads_the_very_values_of_mxfp4() -> None:
    quantized = rounded(MxFormat(element="e2m1"))
    read = gguf.quants.dequantize(mx_blocks(quantized), gguf.GGMLQuantizationType.MXFP4)
    assert np.array_equal(read, quantized.dequantize().numpy())


def unpacked(words: Tensor, bits: int, down: bool) -> Tensor:
    """The codes of GPTQ's words, bit by bit: down columns, or along rows."""
    streams = words.t() if down else words
    rows = []
    for stream in streams.tolist():
        whole = sum((word & 0xFFFFFFFF) << (32 * i) for i, word in enumerate(stream))
        rows.append([(whole >> (bits * i)) & (2**bits - 1) for i in range(len(stream) * 32 // bits)])
    codes = torch.tensor(rows)
    return codes.t() if down else codes


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptqs_second_form_stores_zero_points_as_they_are(bits: int) -> None:
    quantized = rounded(integers(bits, False))
    packed = pack_gptq(int_codes(quantized), 32)
    assert packed["qweight"].shape == (64 * bits // 32, 32)
    assert packed["qzeros"].shape == (2, 32 * bits // 32)
    levels, zeros = unpacked(packed["qweight"], bits, True), unpacked(packed["qzeros"], bits, False)
    group = packed["g_idx"].long()
    values = (levels - zeros[group]) * packed["scales"].float()[group]  # [in, out]
    assert torch.equal(values.t(), quantized.dequantize())


def test_act_order_is_held_by_the_index_of_groups() -> None:
    plain = rounded(integers(4, False))
    index = torch.randperm(64, generator=torch.Generator().manual_seed(1)) // 32
    ordered = QuantizedWeight(plain.codes, plain.params, plain.format, index)
    packed = pack_gptq(int_codes(ordered), 32)
    assert torch.equal(packed["g_idx"], index.int())
    levels, zeros = unpacked(packed["qweight"], 4, True), unpacked(packed["qzeros"], 4, False)
    values = (levels - zeros[index]) * packed["scales"].float()[index]
    assert torch.equal(values.t(), ordered.dequantize())


def test_awqs_words_have_even_outputs_before_odd_ones() -> None:
    quantized = rounded(integers(4, False))
    codes = int_codes(quantized)
    packed = pack_awq(codes, 32)
    assert packed["qweight"].shape == (64, 4)
    first = [(int(packed["qweight"][0, 0]) >> (4 * i)) & 15 for i in range(8)]
    assert first == codes.levels[[0, 2, 4, 6, 1, 3, 5, 7], 0].tolist()


def test_the_converter_of_compressed_tensors_reads_awq() -> None:
    pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed: pip install -e '.[export]'")
    from compressed_tensors.entrypoints.convert.converters.autoawq import AutoAWQConverter

    quantized = rounded(integers(4, False))
    packed = pack_awq(int_codes(quantized), 32)
    levels, zeros = AutoAWQConverter.unpack_awq(packed["qweight"], packed["qzeros"], 4)
    levels, zeros = AutoAWQConverter.reverse_awq_order(levels, zeros, 4)
    group = torch.arange(64) // 32
    values = ((levels & 15).float() - (zeros & 15).float()[group]) * packed["scales"].float()[group]
    assert torch.equal(values.t(), quantized.dequantize())
