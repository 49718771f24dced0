"""Integers packed without gaps into the 32-bit words of GPTQ, AWQ and compressed-tensors files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from quantbench.core.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


def unpack_words(words: Tensor, bits: int, count: int) -> Tensor:
    """The integers of each row, uint8 [rows, count], of words int32 [rows, n]; 1 <= bits <= 8, count * bits <= 32 n.

    Integer i takes the bits i * bits to (i + 1) * bits of its row, least significant first: where 32 is no multiple of
    bits, one begins in a word and ends in the next.
    """
    stream = words.contiguous().numpy(force=True).astype("<i4", copy=False).view(np.uint8)
    flags = np.unpackbits(stream, axis=1, count=count * bits, bitorder="little").reshape(len(stream), count, bits)
    return torch.from_numpy(np.packbits(flags, axis=2, bitorder="little")[:, :, 0])


def unpack_aligned_words(words: Tensor, bits: int, count: int) -> Tensor:
    """The same where no integer crosses a word: each word holds 32 // bits of them, and unused bits at its end."""
    per_word = 32 // bits
    each = unpack_words(words.reshape(-1, 1), bits, per_word)
    return each.reshape(len(words), -1)[:, :count]


def words_for(count: int, bits: int) -> int:
    """How many words hold so many integers without gaps."""
    return -(-count * bits // 32)


def aligned_words_for(count: int, bits: int) -> int:
    """How many words hold them where none crosses a word."""
    return -(-count // (32 // bits))


def unpack_nibbles(packed: Tensor, count: int) -> Tensor:
    """Codes uint8 [rows, count] of bytes uint8 [rows, count / 2], the lower half of a byte first."""
    return torch.stack([packed & 15, packed >> 4], dim=-1).flatten(-2)[..., :count]
