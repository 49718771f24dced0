"""A recipe by the name of its option, for programs: composed as the command line composes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from quantbench.config.build import build
from quantbench.config.compose import config_dir, explain_composition, resolved
from quantbench.core.errors import ConfigError
from quantbench.pipeline.recipe import Recipe


def named_recipe(name: str, overrides: Sequence[str] = (), folder: Path | None = None) -> Recipe:
    """The recipe that `quantizer=NAME` and further overrides stand for; folder: what `--config-dir` names.

    Raises ConfigError for a name, key or value that the command line would refuse, and for an override that is not
    about the recipe: it would have no effect.
    """
    for override in overrides:
        place = override.partition("=")[0].lstrip("+~").rpartition("@")[2]
        if place.partition(".")[0] != "quantizer":
            raise ConfigError(
                f"{override}: not an option of the recipe; give quantizer.KEY=VALUE or GROUP@quantizer.KEY=NAME"
            )
    search = [f"hydra.searchpath=[file://{folder.resolve()}]"] if folder is not None else []
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            config = compose("config", [*search, f"quantizer={name}", *overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain_composition(error)) from error
    return build(resolved(config)["quantizer"], Recipe, "quantizer")
