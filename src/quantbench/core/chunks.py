"""How much is computed at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_CACHED = 2**18
_DEVICE = 2**24


def chunk_elements(device: torch.device) -> int:
    """Elements of float32 to look at together: few enough for a processor's caches, many enough to fill a GPU."""
    return _CACHED if device.type == "cpu" else _DEVICE
