"""The fixture of tests that run the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from command import Workplace


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)
