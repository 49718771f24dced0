"""Modules that are loaded at their first use, and the components that leave torch alone until they compute."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from quantbench.core.lazy import lazy_module

PACKAGE = Path(__file__).parents[2] / "src" / "quantbench"


def test_a_module_runs_at_the_first_access_and_is_then_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_module.py").write_text("VALUE = [1]\n")
    monkeypatch.syspath_prepend(tmp_path)
    lazy = lazy_module("slow_module")
    assert "slow_module" not in sys.modules
    assert lazy.VALUE == [1]
    loaded = sys.modules["slow_module"]
    assert lazy.VALUE is loaded.VALUE
    monkeypatch.setattr(loaded, "VALUE", 2)
    assert lazy.VALUE == 2
    with pytest.raises(AttributeError, match=r"slow_module.*OTHER"):
        _ = lazy.OTHER


def test_a_missing_module_is_reported_at_its_use() -> None:
    lazy = lazy_module("quantbench_has_no_such_module")
    with pytest.raises(ModuleNotFoundError, match="quantbench_has_no_such_module"):
        _ = lazy.anything


def test_formats_transforms_and_roundings_are_imported_and_composed_without_torch() -> None:
    files = [path for part in ("formats", "transforms", "rounding") for path in (PACKAGE / part).glob("*.py")]
    names = [".".join(("quantbench", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in files]
    assert len(names) > 30
    code = (
        "import importlib, sys\n"
        f"modules = [importlib.import_module(name) for name in {names!r}]\n"
        "from quantbench.formats.int import IntFormat\n"
        "IntFormat(bits=4, group_size=128, symmetric=False)\n"
        "try:\n"
        "    IntFormat(bits='four', group_size=128, symmetric=False)\n"
        "except ValueError as error:\n"
        "    assert 'bits' in str(error)\n"
        "else:\n"
        "    raise AssertionError('bits=four was accepted')\n"
        "print(len(modules), 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.split() == [str(len(names)), "False"]
