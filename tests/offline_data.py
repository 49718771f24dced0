"""Real data sets in an offline Hugging Face cache, for tests that skip where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

BESIDE = Path(__file__).parents[2] / "shared" / "hf_home"


def copy_of_datasets(names: Iterable[str], folder: Path) -> Path:
    """A writable copy of some data sets ("ceval___ceval-exam") of the cache; skips if there is no cache."""
    home = Path(os.environ.get("QUANTBENCH_HF_HOME", BESIDE))
    if not home.is_dir():
        pytest.skip(f"no offline data: neither QUANTBENCH_HF_HOME nor {BESIDE} names a folder")
    for name in names:
        shutil.copytree(home / "datasets" / name, folder / name)
    return folder


def use_offline(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Have `datasets` read that folder and nothing else."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
