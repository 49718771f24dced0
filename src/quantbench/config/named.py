"""A recipe by the name of its option, for programs: composed as the command line composes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quantbench.config.composer import compose_cells
from quantbench.config.folders import Folders
from quantbench.core.errors import ConfigError
from quantbench.pipeline.recipe import Recipe


def named_recipe(name: str, overrides: Sequence[str] = (), folder: Path | None = None) -> Recipe:
    """The recipe that `quantizer=NAME` and further overrides stand for; folder: what `--config-dir` names.

    Raises ConfigError for a name, key or value that the command line would refuse, and for an override that is not
    about the recipe: it would have no effect.
    """
    for override in overrides:
        package = override.partition("=")[0].lstrip("+~").rpartition("@")[2]
        if package.partition(".")[0] != "quantizer":
            raise ConfigError(
                f"{override}: not an option of the recipe; give quantizer.KEY=VALUE or GROUP@quantizer.KEY=NAME"
            )
    folders = Folders([] if folder is None else [folder])
    (cell,) = compose_cells([f"quantizer={name}", *overrides], folders)
    if not isinstance(cell.recipe, Recipe):
        raise ConfigError(
            f"quantizer={name}: it quantizes nothing, a checkpoint is read; score it by the command "
            "(docs/checkpoints.md)"
        )
    return cell.recipe
