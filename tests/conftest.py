"""What holds for all tests: small tensors are quicker on one thread, whatever else the machine does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from command import Workplace

pytest_plugins = ["stored_sweep"]

torch.set_num_threads(1)


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """A folder to run the command in."""
    return Workplace(tmp_path)
