"""Full precision that cannot be scored: tried once, shown as failed, tried again by the next command."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from command import Workdir
from quantbench.cells.run import run_cell
from quantbench.cells.session import Session
from quantbench.config.cell import Cell
from quantbench.config.composer import compose_cells
from quantbench.core.errors import ModelError, QuantbenchError
from quantbench.launch.grid import run_grid
from quantbench.store.store import Store
from quantbench.tasks.text_windows import Windows


class Broken:
    """Stands for `Windows.score`, and counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *_arguments: Any) -> Any:
        self.calls += 1
        raise ModelError("window 3 is not finite")


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    workdir = Workdir(tmp_path)
    recipe = ["-m", "quantizer=rtn", "quantizer.weight.group_size=16", "quantizer.weight.bits=3,4,8"]
    return compose_cells([*workdir.base, f"output_dir={workdir.outputs}", *recipe])


def results(outputs: Path) -> pd.DataFrame:
    (path,) = outputs.glob("sweeps/*/results.csv")
    return pd.read_csv(path)


def test_what_all_cells_need_is_tried_once_and_shown_as_failed(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Broken()
    with monkeypatch.context() as patched:
        patched.setattr(Windows, "score", broken)
        for attempt in (1, 2):  # the same command tries again
            with pytest.raises(SystemExit):
                run_grid(cells, ["quantizer=rtn"])
            assert broken.calls == attempt
    said = capsys.readouterr().out
    assert "no such score is stored" not in said
    assert "failed: ModelError: window 3 is not finite" in said
    frame = results(cells[0].settings.output_dir)
    assert set(frame["status"]) == {"failed"}
    assert all("window 3 is not finite" in error for error in frame["error"])
    assert frame["error"].str.contains("full precision of local failed").sum() == 2
    run_grid(cells, ["quantizer=rtn"])
    frame = results(cells[0].settings.output_dir)
    assert set(frame["status"]) == {"done"}
    assert not list(cells[0].settings.output_dir.glob("runs/*/scores/*.failed.json"))


def test_another_process_of_the_same_submission_does_not_try_again(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Broken()
    monkeypatch.setattr(Windows, "score", broken)
    baseline, store = cells[0].baseline, Store(cells[0].settings.output_dir)
    for attempt, error, calls in (
        ("a", ModelError, 1),
        ("a", QuantbenchError, 1),
        ("b", ModelError, 2),
        ("", ModelError, 3),
        ("", ModelError, 4),
    ):
        with pytest.raises(error, match="window 3 is not finite"):
            run_cell(Session(store, attempt), baseline, baseline)
        assert broken.calls == calls


def test_a_lost_reference_is_made_again_for_a_cell_that_needs_it_and_for_no_other(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `quantbench merge`, which brings scores and no references."""
    run_grid(cells[:1], ["quantizer=rtn"])
    outputs = cells[0].settings.output_dir
    before = results(outputs)
    shutil.rmtree(outputs / "references")
    broken = Broken()
    monkeypatch.setattr(Windows, "score", broken)
    run_grid(cells[:1], ["quantizer=rtn"])
    assert broken.calls == 0
    pd.testing.assert_frame_equal(results(outputs), before)
    with pytest.raises(SystemExit):
        run_grid(cells[:2], ["quantizer=rtn"])
    assert broken.calls == 1
