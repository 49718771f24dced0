"""One point of the grid: its parts as resolved configuration, of which everything else about it is made."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from quantbench.calibration.base import AnyCalibration
from quantbench.config.identity import run_identity
from quantbench.config.node import ConfigNode
from quantbench.config.settings import Settings, tells_apart
from quantbench.core.hashing import digest
from quantbench.core.launcher import Launcher
from quantbench.core.paths import brief
from quantbench.models.loading import ModelSource
from quantbench.pipeline.any_recipe import AnyRecipe
from quantbench.pipeline.recipe import FULL_PRECISION
from quantbench.tasks.task import Task

if TYPE_CHECKING:
    from quantbench.config.settings import Scale


@dataclass(frozen=True, eq=False)
class Cell:
    """One checked point of the grid. calib_part is None for a recipe that reads no calibration data, unless such cells
    are told apart (Settings.share_data_free=false).

    choices    the option chosen in each group
    overrides  those that tell it apart from other cells
    """

    settings: Settings
    scale_part: ConfigNode[Scale]
    model_part: ConfigNode[ModelSource]
    recipe_part: ConfigNode[AnyRecipe]
    calib_part: ConfigNode[AnyCalibration] | None
    task_parts: Mapping[str, ConfigNode[Task]]
    cluster_part: ConfigNode[Launcher]
    choices: dict[str, str]
    overrides: tuple[str, ...]

    @property
    def model(self) -> ModelSource:
        """Where the model comes from."""
        return self.model_part.component

    @property
    def recipe(self) -> AnyRecipe:
        """How it is quantized, or which checkpoint it is."""
        return self.recipe_part.component

    @property
    def calib(self) -> AnyCalibration | None:
        """What it is calibrated on; None for a recipe that reads no data, unless its cells are told apart."""
        return None if self.calib_part is None else self.calib_part.component

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """What it is tested on, by name."""
        return {name: part.component for name, part in self.task_parts.items()}

    @property
    def cluster(self) -> Launcher:
        """Where it runs."""
        return self.cluster_part.component

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the run id hashes."""
        calib = None if self.calib_part is None else self.calib_part.identity
        seed, replicate = self.settings.seed, self.settings.replicate
        return run_identity(self.model_part.identity, self.recipe_part.identity, calib, seed, replicate)

    @cached_property
    def run_id(self) -> str:
        """The run's name in the store: equal identities are the same run."""
        return digest(self.identity)

    @cached_property
    def baseline(self) -> Cell:
        """The full-precision run on the cell's tasks: one for all cells of a model."""
        recipe = ConfigNode(FULL_PRECISION, AnyRecipe, "quantizer")
        choices = {**self.choices, "quantizer": "none"}
        return dataclasses.replace(self, recipe_part=recipe, calib_part=None, choices=choices, overrides=())

    @property
    def plain(self) -> dict[str, Any]:
        """The cell as resolved configuration, from which `quantbench.config.frozen` makes it again."""
        settings = {field.name: getattr(self.settings, field.name) for field in dataclasses.fields(self.settings)}
        return {
            **settings,
            "output_dir": str(self.settings.output_dir),
            "scale": self.scale_part.plain,
            "model": self.model_part.plain,
            "quantizer": self.recipe_part.plain,
            "calib": None if self.calib_part is None else self.calib_part.plain,
            "tasks": {name: part.plain for name, part in self.task_parts.items()},
            "cluster": self.cluster_part.plain,
        }

    @property
    def label(self) -> str:
        """A short human-readable name."""
        names = [self.choices.get(group, "?") for group in ("model", "quantizer")]
        names.append(self.choices.get("calib", "?") if self.calib_part is not None else "no calibration")
        extra = [o for o in self.overrides if o.partition("=")[0].lstrip("+~") not in self.choices and tells_apart(o)]
        short = [brief(o).lstrip("+~").removeprefix("quantizer.").removeprefix("calib.") for o in extra]
        return " ".join([*names, *short])


def cell_of(plain: Mapping[str, Any], overrides: Sequence[str], choices: Mapping[str, str]) -> Cell:
    """The cell of `Cell.plain`. Raises ConfigError naming the first key that is wrong."""
    from quantbench.config.settings import Scale

    parts = ("scale", "model", "quantizer", "calib", "tasks", "cluster")
    own = {key: value for key, value in plain.items() if key not in parts}
    settings = ConfigNode({"_target_": "quantbench.config.settings.Settings", **own}, Settings, "")
    calib = plain["calib"]
    return checked(
        settings.component,
        ConfigNode(plain["scale"], Scale, "scale"),
        ConfigNode(plain["model"], ModelSource, "model"),
        ConfigNode(plain["quantizer"], AnyRecipe, "quantizer"),
        None if calib is None else ConfigNode(calib, AnyCalibration, "calib"),
        {name: ConfigNode(task, Task, f"eval.tasks.{name}") for name, task in plain["tasks"].items()},
        ConfigNode(plain["cluster"], Launcher, "cluster"),
        choices=dict(choices),
        overrides=tuple(overrides),
    )


def checked(
    settings: Settings,
    scale: ConfigNode[Scale],
    model: ConfigNode[ModelSource],
    recipe: ConfigNode[AnyRecipe],
    calib: ConfigNode[AnyCalibration] | None,
    tasks: Mapping[str, ConfigNode[Task]],
    cluster: ConfigNode[Launcher],
    *,
    choices: dict[str, str],
    overrides: tuple[str, ...],
) -> Cell:
    """A cell whose parts have been built, which checks every option's name, type and range; nothing is loaded."""
    for part in (recipe, scale, model, calib, *tasks.values(), cluster):
        if part is not None:
            part.component  # noqa: B018 - building is the check
    used = None if recipe.component.data_free and settings.share_data_free else calib
    return Cell(settings, scale, model, recipe, used, tasks, cluster, choices, overrides)


def slug(text: str, length: int = 40) -> str:
    """Letters, digits, dots, dashes and underscores of a text; safe as a file name on every system."""
    return re.sub(r"[^A-Za-z0-9.=_]+", "-", text).strip("-")[:length].strip("-") or "sweep"
