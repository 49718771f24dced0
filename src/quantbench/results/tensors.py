"""Tensors on disk: atomic safetensors files, fingerprints, and codes packed to b bits each."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from quantbench.errors import StoreError
from quantbench.results.files import replacing, write_failure

CHUNK = 1 << 20
"""Codes that are unpacked at a time; a multiple of 8, so that every chunk but the last fills whole bytes."""


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, atomically, in a folder that exists. Raises StoreError if that is refused."""
    with replacing(path) as temporary:
        try:
            save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary, metadata)  # type: ignore[arg-type]
        except SafetensorError as error:
            raise write_failure(path, error) from error


def load(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises StoreError if it is missing, truncated or something else."""
    try:
        return load_file(path, device)
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"cannot read {path}: {error}. Restore it, or delete the folder {path.parent} to compute it again"
        ) from error


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names (sorted), dtypes, shapes and bytes: equal on every device and for every memory layout."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        header = f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}".encode()
        digest.update(len(header).to_bytes(8, "little"))
        digest.update(header)
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Codes uint8 of any shape, each < 2^bits, as one stream of bits: uint8 [ceil(numel * bits / 8)].

    Code i takes the bits i * bits to (i + 1) * bits of the stream, least significant first; 1 <= bits <= 8.
    Raises ValueError if a code does not fit.
    """
    flat = codes.detach().cpu().contiguous().reshape(-1).numpy()
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
    stream: NDArray[np.uint8] = packed.detach().cpu().numpy()
    if stream.shape != (math.ceil(count * bits / 8),):
        raise ValueError(f"{count} codes of {bits} bits are not {stream.shape} bytes")
    codes = np.empty(count, dtype=np.uint8)
    for start in range(0, count, CHUNK):
        stop = min(start + CHUNK, count)
        part = stream[start * bits // 8 : math.ceil(stop * bits / 8)]
        flags = np.unpackbits(part, count=(stop - start) * bits, bitorder="little").reshape(-1, bits)
        codes[start:stop] = np.packbits(flags, axis=1, bitorder="little")[:, 0]
    return torch.from_numpy(codes).reshape(tuple(shape))
