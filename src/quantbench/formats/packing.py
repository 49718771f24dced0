"""Codes packed to b bits each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from quantbench.core.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

CHUNK = 1 << 20
"""Codes that are unpacked at a time; a multiple of 8, so that every chunk but the last fills whole bytes."""


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Codes uint8 of any shape, each < 2^bits, as one stream of bits: uint8 [ceil(numel * bits / 8)].

    Code i takes the bits i * bits to (i + 1) * bits of the stream, least significant first; 1 <= bits <= 8.
    Raises ValueError if a code does not fit.
    """
    flat = codes.contiguous().reshape(-1).numpy(force=True)
    if flat.size and int(flat.max()) >> bits:
        raise ValueError(f"code {int(flat.max())} does not fit in {bits} bits")
    packed = np.empty(math.ceil(flat.size * bits / 8), dtype=np.uint8)
    for start in range(0, flat.size, CHUNK):
        chunk = np.unpackbits(flat[start : start + CHUNK, None], axis=1, count=bits, bitorder="little")
        stream = np.packbits(chunk.reshape(-1), bitorder="little")
        packed[start * bits // 8 :][: stream.size] = stream
    return torch.from_numpy(packed)


def unpack_bits(packed: Tensor, bits: int, shape: Sequence[int]) -> Tensor:
    """The codes that `pack_bits` packed: uint8 of `shape`. Raises ValueError if the stream has another length."""
    count = math.prod(shape)
    stream: NDArray[np.uint8] = packed.numpy(force=True)
    if stream.shape != (math.ceil(count * bits / 8),):
        raise ValueError(f"{count} codes of {bits} bits are not {stream.shape} bytes")
    codes = np.empty(count, dtype=np.uint8)
    for start in range(0, count, CHUNK):
        stop = min(start + CHUNK, count)
        part = stream[start * bits // 8 : math.ceil(stop * bits / 8)]
        flags = np.unpackbits(part, count=(stop - start) * bits, bitorder="little").reshape(-1, bits)
        codes[start:stop] = np.packbits(flags, axis=1, bitorder="little")[:, 0]
    return torch.from_numpy(codes).reshape(tuple(shape))
