"""Tensors on disk: atomic safetensors files and fingerprints."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from quantbench.core.errors import StoreError
from quantbench.core.files import replacing, write_failure


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, atomically, in a folder that exists. Raises StoreError if that is refused."""
    with replacing(path) as temporary:
        try:
            save_file(_apart(tensors), temporary, metadata)  # type: ignore[arg-type]
        except SafetensorError as error:
            raise write_failure(path, error) from error


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without memory in common (several layers may have one scale), which safetensors refuses."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        found[name] = tensor.detach().contiguous()
        address = found[name].untyped_storage().data_ptr()
        if address in seen:
            found[name] = found[name].clone()
        seen.add(address)
    return found


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
