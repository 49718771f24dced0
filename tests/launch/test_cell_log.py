"""The log of a run says how work on it ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantbench.cells.cell_log import cell_log


def test_ctrl_c_is_a_line_and_an_error_has_its_traceback(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    with pytest.raises(KeyboardInterrupt), cell_log(path):
        raise KeyboardInterrupt
    (line,) = path.read_text(encoding="utf-8").splitlines()
    assert line.endswith("WARNING interrupted by Ctrl-C")
    with pytest.raises(ZeroDivisionError), cell_log(path):
        raise ZeroDivisionError("of one")
    text = path.read_text(encoding="utf-8")
    assert "stopped: of one" in text
    assert "Traceback" in text
