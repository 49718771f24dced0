"""The root of the configuration: what may stand there, and the cell that comes of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field

from quantbench.calibration.base import AnyCalibration
from quantbench.config.identity import digest, run_identity
from quantbench.core.component import component
from quantbench.core.launcher import Launcher
from quantbench.core.paths import LocalPath, brief
from quantbench.models.loading import ModelSource
from quantbench.pipeline.recipe import Recipe
from quantbench.tasks.task import Task

OPERATIONAL = (
    "device",
    "threads",
    "save",
    "dry_run",
    "output_dir",
    "cluster",
    "detach",
    "retry_failed",
    "checkpoint_blocks",
    "hydra.",
)
"""Overrides that do not tell studies apart: a sweep keeps its name whatever they are."""


@component
class Scale:
    """How much text a study uses. Its values count where they are used; itself it is only a caption.

    lm_eval_limit  documents of each task of lm-eval (of each subject of a group); None: all
    """

    calib_sequences: Annotated[int, Field(ge=1)]
    calib_length: Annotated[int, Field(ge=8)]
    window: Annotated[int, Field(ge=8)]
    windows: Annotated[int, Field(ge=1)] | None
    items: Annotated[int, Field(ge=1)] | None = None
    lm_eval_limit: Annotated[int, Field(ge=1)] | None = None


@component
class Settings:
    """The scalar options at the root; none but seed and replicate belong to a run's identity."""

    seed: Annotated[int, Field(ge=0)]
    replicate: Annotated[int, Field(ge=0)]
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
    threads: Annotated[int, Field(ge=1)]
    save: Literal["weights", "none"]
    output_dir: LocalPath
    dry_run: bool
    checkpoint_blocks: Annotated[int, Field(ge=0)]
    detach: bool
    retry_failed: bool


@dataclass(frozen=True)
class Cell:
    """One checked point of the grid. `calib` is None for a recipe that uses no calibration data."""

    settings: Settings
    scale: Scale
    model: ModelSource
    recipe: Recipe
    calib: AnyCalibration | None
    tasks: dict[str, Task]
    choices: dict[str, str]
    overrides: tuple[str, ...]
    cluster: Launcher
    config: dict[str, Any] = field(repr=False)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the run id hashes."""
        return run_identity(self.model, self.recipe, self.calib, self.settings.seed, self.settings.replicate)

    @cached_property
    def run_id(self) -> str:
        """The run's name in the store: equal identities are the same run."""
        return digest(self.identity)

    @property
    def label(self) -> str:
        """A short human-readable name."""
        names = [self.choices.get(group, "?") for group in ("model", "quantizer")]
        names.append(self.choices.get("calib", "?") if self.calib is not None else "no calibration")
        extra = [o for o in self.overrides if o.partition("=")[0].lstrip("+~") not in self.choices and counts(o)]
        short = [brief(o).lstrip("+~").removeprefix("quantizer.").removeprefix("calib.") for o in extra]
        return " ".join([*names, *short])


def counts(override: str) -> bool:
    """Whether an override can tell two studies apart; device, threads and the like cannot."""
    return not override.lstrip("+~").startswith(OPERATIONAL)


def slug(text: str, length: int = 40) -> str:
    """Letters, digits, dots, dashes and underscores of a text; safe as a file name on every system."""
    return re.sub(r"[^A-Za-z0-9.=_]+", "-", text).strip("-")[:length].strip("-") or "sweep"
