"""What holds for all tests: small tensors are quicker on one thread, whatever else the machine does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from command import Workdir

pytest_plugins = ["stored_sweep"]

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, which the process that hands out tests never does


settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests on the packaged model first: minutes each, they would keep one worker busy after all others."""
    items.sort(key=lambda item: item.get_closest_marker("model") is None)


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    """A folder to run the command in."""
    from command import Workdir

    return Workdir(tmp_path)
