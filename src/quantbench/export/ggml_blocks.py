"""Blocks of 32 weights as ggml stores them, made of codes that are there: nothing is rounded.

Specification: ggml's block_q4_0, block_q5_0, block_q8_0 and block_mxfp4. d is a float16 scale, q_i the i-th level

    Q4_0   d, 16 bytes: q_i and q_{i+16} in the halves of a byte          value (q - 8) d       -8 .. 7
    Q5_0   d, 32 high bits, 16 bytes as above                             value (q - 16) d     -16 .. 15
    Q8_0   d, 32 signed bytes                                             value q d           -128 .. 127
    MXFP4  an e8m0 byte, 16 bytes as above of e2m1 codes
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quantbench.export.codes import IntCodes, NotHeldError
from quantbench.formats.mx import MxFormat
from quantbench.formats.quantized_weight import QuantizedWeight

Bytes = NDArray[np.uint8]
Kind = Literal["Q4_0", "Q5_0", "Q8_0", "MXFP4"]

BLOCK = 32


def int_kind(bits: int, symmetric: bool) -> Kind:
    """The smallest type that has every level - zero. Raises NotHeldError where none has.

    An integer zero point of b bits costs one more: the differences of two levels are integers of b + 1 bits.
    """
    needed = bits if symmetric else bits + 1
    if needed > 8:
        raise NotHeldError("8 bits and zero points, of which no type has all values. Exact: --to compressed-tensors")
    return "Q4_0" if needed <= 4 else "Q5_0" if needed == 5 else "Q8_0"


def int_blocks(codes: IntCodes, kind: Kind) -> Bytes:
    """A weight [out, in] as bytes [out, in / 32 * size of a block]; codes in groups of 32."""
    assert codes.group_size == BLOCK
    rows = len(codes.levels)
    zeros = codes.zeros.repeat_interleave(BLOCK, dim=1)
    values = (codes.levels.short() - zeros.short()).numpy().reshape(-1, BLOCK)  # [blocks, 32]
    scales = codes.scales.numpy().astype(np.float16).reshape(-1, 1).view(np.uint8)  # [blocks, 2]
    if kind == "Q8_0":
        parts = [scales, values.astype(np.int8).view(np.uint8)]
    elif kind == "Q5_0":
        levels = (values + 16).astype(np.uint8)
        parts = [scales, np.packbits(levels >> 4, axis=1, bitorder="little"), _halves((levels & 15).astype(np.uint8))]
    else:
        parts = [scales, _halves((values + 8).astype(np.uint8))]
    return np.concatenate(parts, axis=1).reshape(rows, -1)


def mx_blocks(weight: QuantizedWeight) -> Bytes:
    """An mxfp4 weight [out, in] as bytes [out, in / 32 * 17]."""
    rows = len(weight.codes)
    scales = MxFormat.scales.encode(weight.params.scale).numpy().reshape(-1, 1)
    codes = _halves(weight.codes.numpy().reshape(-1, BLOCK))
    return np.concatenate([scales, codes], axis=1).reshape(rows, -1)


def _halves(levels: Bytes) -> Bytes:
    """4-bit levels [blocks, 32] as bytes [blocks, 16]: the first sixteen in the low halves."""
    low, high = np.split(levels, 2, axis=1)
    return (low | (high << 4)).astype(np.uint8)
