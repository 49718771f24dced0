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
from quantbench.core.errors import ConfigError

RunCells = Callable[[Sequence[Cell], Sequence[str], Mapping[str, str]], None]
"""Runs checked cells; the overrides as typed and what a file of sweeps/ adds to them name the sweep."""

Grid = tuple[list[Cell], list[str], dict[str, str]]

MANAGED = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.output_subdir", "hydra.job.chdir")
"""Where Hydra would write and work; what is written lies under output_dir alone."""

_made: list[Grid] = []
_refusals: list[Exception] = []


def run(arguments: Sequence[str], folders: Folders, run_cells: RunCells) -> None:
    """Compose the cells of a command line and, when Hydra is through, hand them to `run_cells`.

    Raises ConfigError, naming what is wrong and what would be right, before anything is run.
    """
    for argument in arguments:
        key = argument.partition("=")[0].lstrip("+~")
        if key in MANAGED:
            raise ConfigError(f"{argument}: Hydra writes nothing here; say where results lie with output_dir=FOLDER")
    search(folders)
    # Hydra refuses overrides on both sides of a flag (its argparse cannot mix them).
    sys.argv[1:] = to_hydra(arguments)
    # Hydra would print its own errors and advise to add a misspelt key with a plus: have them raised instead.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    _refusals.clear()
    _made.clear()
    with hydra_explained(folders):
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(_single)()
    if _refusals:
        raise _refusals[0]
    for cells, command, params in _made:
        run_cells(cells, command, params)


def _single(config: DictConfig) -> None:
    """One cell: Hydra's task function. Hydra would print a line of its own for an exception: it is raised later."""
    try:
        with hydra_explained(_folders()):
            _made.append(_single_grid(config))
    except Exception as error:
        _refusals.append(error)


def _single_grid(config: DictConfig) -> Grid:
    info = HydraConfig.get()
    overrides = _typed(info.overrides.task)
    choices = OmegaConf.to_container(info.runtime.choices)
    assert isinstance(choices, dict)
    composer = Composer(_folders(), _NoLoader(), _refuse)
    cell = composer.cell(config, overrides, {str(group): option for group, option in choices.items()})
    return [cell], as_typed(overrides), {}


def make_batch(loader: Any, config: DictConfig, job_overrides: Sequence[Sequence[str]]) -> None:
    """Compose and check the cells of a multirun."""
    composer = Composer(_folders(), loader, lambda overrides: loader.load_sweep_config(config, overrides))
    cells = composer.cells(job_overrides)
    params = {str(key): str(value) for key, value in (config.hydra.sweeper.get("params") or {}).items()}
    _made.append((cells, as_typed(_typed(config.hydra.overrides.task)), params))


def _typed(overrides: Any) -> list[str]:
    """Overrides as they stand: the list's own entries would have their ${...} put in, each as if it were a value."""
    found = OmegaConf.to_container(overrides, resolve=False)
    assert isinstance(found, list)
    return [str(one) for one in found]


def _folders() -> Folders:
    folders = searched()
    if folders is None:
        raise ConfigError("hydra/launcher=quantbench runs grids of quantbench only: python -m quantbench -m ...")
    return folders


class _NoLoader:
    """A single cell is composed already."""

    def list_groups(self, _parent: str) -> list[str]:
        return []


def _refuse(_overrides: list[str]) -> DictConfig:
    raise AssertionError("a single cell is composed by Hydra itself")
