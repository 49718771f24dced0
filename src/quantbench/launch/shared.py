"""What all cells of a sweep have in common, checked before anything is loaded or fetched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from quantbench.config.cell import Cell
from quantbench.core.errors import ConfigError, StoreError
from quantbench.core.launcher import Launcher

ONE_FOR_ALL = ("output_dir", "dry_run", "detach", "retry_failed")
"""Settings that concern the sweep, not its cells."""


def check_shared(cells: Sequence[Cell]) -> Launcher:
    """The launcher of all cells.

    Raises ConfigError if cells do not agree in what concerns the sweep as a whole or want more threads than a job has,
    StoreError if nothing can be written to the output folder. Nothing is imported that takes seconds, nothing written.
    """
    first = cells[0]
    for name in ONE_FOR_ALL:
        values = dict.fromkeys(str(getattr(cell.settings, name)) for cell in cells)
        if len(values) > 1:
            raise ConfigError(f"{name}={','.join(values)}: a sweep has one {name}; give one value")
    if any(cell.cluster != first.cluster for cell in cells):
        raise ConfigError("cluster: a sweep has one launcher; give one value for each of its options")
    first.cluster.check_threads(max(cell.settings.threads for cell in cells))
    if not first.settings.dry_run:
        check_writable(first.settings.output_dir)
    return first.cluster


def check_writable(folder: Path) -> None:
    """Raise StoreError if `folder` is something else, or could not be made or written to."""
    for place in (folder.absolute(), *folder.absolute().parents):
        if not os.path.lexists(place):
            continue
        if not place.exists():
            problem = f"{place} is a link to nothing"
        elif not place.is_dir():
            problem = f"{place} is a file"
        elif not os.access(place, os.W_OK | os.X_OK):
            problem = f"{place} cannot be written to"
        else:
            return
        raise StoreError(f"output_dir={folder}: {problem}. Nothing was run; give a folder that can be written to")
