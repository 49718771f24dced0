"""Where options and sweeps lie: the user's folders go before ours, and what is in none is answered with where it was
looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantbench.config.catalogue import Catalogue
from quantbench.config.cell import Cell
from quantbench.config.composer import compose_cells
from quantbench.config.folders import Folders, config_dir
from quantbench.core.errors import ConfigError

SWEEP = "# @package _global_\nhydra: {{mode: MULTIRUN, sweeper: {{params: {{quantizer: 'rtn,gptq', seed: '{0}'}}}}}}\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder one works in, and one of options beside it."""
    (tmp_path / "work").mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def sweep(folder: Path, name: str = "own", seed: int = 0) -> None:
    (folder / "sweeps").mkdir(exist_ok=True)
    (folder / "sweeps" / f"{name}.yaml").write_text(SWEEP.format(seed))


def seeds(cells: list[Cell]) -> set[int]:
    assert [cell.choices["quantizer"] for cell in cells] == ["rtn", "gptq"]
    return {cell.settings.seed for cell in cells}


def test_a_sweep_is_found_in_the_folder_one_works_in(here: Path) -> None:
    sweep(here / "work", seed=3)
    assert seeds(compose_cells(["+sweep=own"])) == {3}


def test_a_sweep_is_found_in_a_folder_of_options_and_that_goes_first(here: Path) -> None:
    sweep(here / "mine", seed=4)
    mine = Folders([here / "mine"])
    assert seeds(compose_cells(["+sweep=own"], mine)) == {4}
    sweep(here / "work", seed=3)
    assert seeds(compose_cells(["+sweep=own"], mine)) == {4}
    assert seeds(compose_cells(["+sweep=own"])) == {3}
    assert seeds(compose_cells(["+sweep=own", "calib=code_sample"], mine)) == {4}


def test_a_sweep_of_ones_own_may_be_called_like_ours(here: Path) -> None:
    sweep(here / "work", name="demo", seed=5)
    assert seeds(compose_cells(["+sweep=demo"])) == {5}


def test_a_sweep_that_there_is_not_is_answered_with_where_it_was_looked_for(here: Path) -> None:
    sweep(here / "work", name="nightly")
    with pytest.raises(ConfigError) as caught:
        compose_cells(["+sweep=nigthly"], Folders([here / "mine"]))
    said = str(caught.value)
    assert said.startswith("sweep=nigthly: no such choice. Did you mean 'nightly'? There are: ")
    assert said.endswith(f"Looked in {here / 'mine'}/sweeps, ./sweeps, the packaged sweeps.")


def test_options_of_ones_own_go_before_ours_and_the_first_folder_first(here: Path) -> None:
    smoke = (config_dir() / "scale" / "smoke.yaml").read_text()
    assert "calib_sequences: 2\n" in smoke
    for name, sequences in (("mine", 3), ("work", 5)):
        (here / name / "scale").mkdir()
        mine = smoke.replace("calib_sequences: 2", f"calib_sequences: {sequences}")
        (here / name / "scale" / "smoke.yaml").write_text(mine)
    found = []
    for own in ([], ["mine"], ["mine", "work"], ["work", "mine"]):
        (cell,) = compose_cells(["scale=smoke", "calib=wiki"], Folders([here / name for name in own]))
        assert cell.calib is not None
        found.append(cell.calib.n)
    assert found[1:] == [3, 3, 5]
    assert found[0] not in {3, 5}


def test_sweeps_of_ones_own_are_listed(here: Path) -> None:
    sweep(here / "work", "nightly")
    sweep(here / "mine", "weekly")
    listed = Catalogue(Folders([here / "mine"])).files("sweep")
    assert {"demo", "nightly", "weekly"} <= set(listed)
    assert listed["nightly"].read_text() == SWEEP.format(0)
    assert "weekly" not in Catalogue().files("sweep")


@pytest.mark.parametrize("content", [None, "config.yaml"])
def test_what_is_no_folder_of_options_is_refused(here: Path, content: str | None) -> None:
    folder = here / "mine" if content else here / "nowhere"
    if content:
        (folder / content).write_text("{}")
    message = r"it holds config\.yaml, which would replace" if content else "no such folder"
    with pytest.raises(ConfigError, match=rf"^--config-dir {folder}: {message}"):
        Folders([folder])
