"""What `python -m quantbench key=value ...` does: cells are composed, and run if models and data can be had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from quantbench.cli.flags import config_dirs
from quantbench.config.application import run
from quantbench.config.folders import Folders
from quantbench.config.overrides import MULTIRUN
from quantbench.core import garbage

if TYPE_CHECKING:
    from quantbench.config.cell import Cell


def run_cells(flags: Sequence[str], overrides: Sequence[str]) -> None:
    """Compose, check and run; flags of Hydra's, +sweep= means -m. Ends the process with status 1 if a cell failed."""
    own, kept = config_dirs(flags)
    if any(override.lstrip("+").startswith("sweep=") for override in overrides) and not MULTIRUN & set(kept):
        kept = ["-m", *kept]
    run([*kept, *overrides], Folders(own), _run_grid)


def _run_grid(cells: Sequence[Cell], command: Sequence[str], sweep_params: Mapping[str, str]) -> None:
    from quantbench.cells.reachable import check_reachable
    from quantbench.launch.shared import check_shared

    check_shared(cells)
    check_reachable(cells)
    from quantbench.launch.grid import run_grid

    garbage.resume()
    run_grid(cells, command, sweep_params)
