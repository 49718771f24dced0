"""Hydra's application: what `python -m quantbench key=value ...` runs. Grids reach it through our launcher plugin."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from quantbench.config.cell import Cell
from quantbench.config.composer import Composer
from quantbench.config.explain import hydra_explained
from quantbench.config.folders import Folders, config_dir, search, searched
from quantbench.config.overrides import as_typed, to_hydra
from quantbench.core.errors import ConfigError, QuantbenchError

RunCells = Callable[[Sequence[Cell], Sequence[str], Mapping[str, str]], None]
"""Runs checked cells; the overrides as typed and what a file of sweeps/ adds to them name the sweep."""

_run_cells: list[RunCells] = []
_refusals: list[QuantbenchError] = []


def run(arguments: Sequence[str], folders: Folders, run_cells: RunCells) -> None:
    """Compose the cells of a command line and hand them to `run_cells`.

    Raises ConfigError, naming what is wrong and what would be right, before anything is run.
    """
    search(folders)
    _run_cells[:] = [run_cells]
    # Hydra refuses overrides on both sides of a flag (its argparse cannot mix them).
    sys.argv[1:] = to_hydra(arguments)
    # Hydra would print its own errors and advise to add a misspelt key with a plus: have them raised instead.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    _refusals.clear()
    with hydra_explained(folders):
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(_single)()
    if _refusals:
        raise _refusals[0]


def _single(config: DictConfig) -> None:
    """One cell: Hydra's task function. Hydra would print a line of its own for an exception: it is raised later."""
    try:
        _run_single(config)
    except QuantbenchError as error:
        _refusals.append(error)


def _run_single(config: DictConfig) -> None:
    info = HydraConfig.get()
    overrides = list(info.overrides.task)
    choices = OmegaConf.to_container(info.runtime.choices)
    assert isinstance(choices, dict)
    composer = Composer(_folders(), _NoLoader(), _refuse)
    cell = composer.cell(config, overrides, {str(group): option for group, option in choices.items()})
    _runner()([cell], as_typed(overrides), {})


def run_batch(loader: Any, config: DictConfig, job_overrides: Sequence[Sequence[str]]) -> None:
    """The cells of a multirun: check every one, then run them all."""
    folders = _folders()
    composer = Composer(folders, loader, lambda overrides: loader.load_sweep_config(config, overrides))
    cells = composer.cells(job_overrides)
    params = {str(key): str(value) for key, value in (config.hydra.sweeper.get("params") or {}).items()}
    _runner()(cells, as_typed(config.hydra.overrides.task), params)


def _folders() -> Folders:
    return searched() or Folders()


def _runner() -> RunCells:
    if not _run_cells:
        raise ConfigError("hydra/launcher=quantbench runs grids of quantbench only: python -m quantbench -m ...")
    return _run_cells[0]


class _NoLoader:
    """A single cell is composed already."""

    def list_groups(self, _parent: str) -> list[str]:
        return []


def _refuse(_overrides: list[str]) -> DictConfig:
    raise AssertionError("a single cell is composed by Hydra itself")
