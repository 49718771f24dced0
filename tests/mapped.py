"""Where a tensor lies: in memory, or in a file of some folder that is mapped there."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

MAPS = Path("/proc/self/maps")


def in_file(tensor: Tensor, folder: Path) -> bool:
    """Whether the tensor's first byte lies in a mapped file of the folder, which may have lost its name."""
    if not MAPS.exists():
        pytest.skip("this system does not show what is mapped")
    address = tensor.data_ptr()
    for line in MAPS.read_text(encoding="utf-8").splitlines():
        bounds, *rest = line.split(maxsplit=5)
        low, high = (int(bound, 16) for bound in bounds.split("-"))
        if low <= address < high:
            return len(rest) == 5 and rest[4].startswith(str(folder))
    return False
