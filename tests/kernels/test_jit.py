"""What was compiled is kept, and made again where that cannot be read or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba
import pytest

from quantbench.core import progress
from quantbench.kernels.jit import compiled


def twice(x: Any) -> Any:
    return 2 * x


def compiled_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("QUANTBENCH_CACHE", str(folder))
    progress.say_once.cache_clear()
    return compiled(numba.float64)(twice)


def hits(dispatcher: Any) -> int:
    return sum(dispatcher.stats.cache_hits.values())


def test_compiled_code_is_kept_and_what_is_damaged_is_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = compiled_in(tmp_path, monkeypatch), compiled_in(tmp_path, monkeypatch)
    assert (first(3.0), second(3.0)) == (6.0, 6.0)
    assert (hits(first), hits(second)) == (0, 1)
    for file in (tmp_path / "kernels").rglob("*.nbc"):
        file.write_bytes(b"not what it was")
    with caplog.at_level("INFO", logger="quantbench"):
        third = compiled_in(tmp_path, monkeypatch)
    assert third(3.0) == 6.0
    assert "cannot be read" in caplog.text
    assert hits(compiled_in(tmp_path, monkeypatch)) == 1


def test_where_nothing_can_be_written_code_is_compiled_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "kernels").write_text("no folder", encoding="utf-8")
    with caplog.at_level("INFO", logger="quantbench"):
        function = compiled_in(tmp_path, monkeypatch)
        assert compiled(numba.float64)(twice)(1.0) == 2.0
    assert function(3.0) == 6.0
    assert caplog.text.count("is not kept") == 1
