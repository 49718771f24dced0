"""Codes in words of 32 bits and in bytes, as several file formats lay them out."""

from __future__ import annotations

import torch
from torch import Tensor

from quantbench.formats.packing import pack_bits


def rows_of_words(codes: Tensor, bits: int) -> Tensor:
    """Codes [rows, n] < 2^bits as one stream of bits a row: int32 [rows, ceil(n bits / 32)], lowest bits first."""
    rows, count = codes.shape
    whole = torch.nn.functional.pad(codes, (0, -count % 32))
    words = pack_bits(whole, bits).view(torch.int32).reshape(rows, -1)
    return words[:, : -(-count * bits // 32)].contiguous()


def pairs(codes: Tensor) -> Tensor:
    """4-bit codes [rows, n], n even, as bytes [rows, n / 2]: the first of a pair in the low half."""
    return codes[:, ::2] | (codes[:, 1::2] << 4)
