"""What holds for all tests: small tensors are quicker on one thread, whatever else the machine does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from command import Workdir

pytest_plugins = ["stored_sweep"]

torch.set_num_threads(1)


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    """A folder to run the command in."""
    return Workdir(tmp_path)
