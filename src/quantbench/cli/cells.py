"""A command line that is no sub-command: one cell or a grid, composed by Hydra."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from quantbench.cli.entry import explaining_composition, reporting_errors
from quantbench.config.compose import cell_from, check_additions, config_dir
from quantbench.config.mixing import register_resolvers
from quantbench.launch.axes import as_choices

MULTIRUN = {"-m", "--multirun"}


def run_cells(flags: Sequence[str], overrides: Sequence[str]) -> None:
    """Run what a command line asks for. Raises QuantbenchError for what is wrong with it."""
    if any(override.lstrip("+").startswith("sweep=") for override in overrides) and not MULTIRUN & set(flags):
        flags = ["-m", *flags]
    # Hydra refuses overrides on both sides of a flag (its argparse cannot mix them).
    sys.argv[1:] = as_choices([*flags, *overrides])
    # Hydra would print its own errors and advise to add a misspelt key with a plus: have them raised instead.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register_resolvers()
    with explaining_composition():
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(_single)()


def _single(config: DictConfig) -> None:
    """One cell: Hydra's task function. It ends the process itself, since Hydra adds to errors that pass through it."""
    with reporting_errors(), explaining_composition():
        info = HydraConfig.get()
        overrides = list(info.overrides.task)
        check_additions(overrides, config, list(info.runtime.choices))
        choices = {str(group): str(option) for group, option in info.runtime.choices.items()}
        cell = cell_from(config, overrides, choices)
        from quantbench.launch.grid import run_grid

        run_grid([cell], command=overrides)
