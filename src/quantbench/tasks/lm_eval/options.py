"""What can be chosen of a task of lm-eval."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import ConfigError
from quantbench.core.origin import Origin
from quantbench.core.paths import LocalPath
from quantbench.tasks.lm_eval.catalogue import catalogue_origin

UNDESCRIBED = Origin(name="undescribed", family="unknown")
"""Stands for the task's own name, which a default cannot know."""


@component
class LmEvalOptions:
    """The options of LmEvalTask."""

    task: Annotated[str, Field(min_length=1)]
    shots: Annotated[int, Field(ge=0)] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    include_path: LocalPath | None = None
    seed: Annotated[int, Field(ge=0)] = 1234
    chat: bool = False
    max_length: Annotated[int, Field(ge=2)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    origin: Origin = UNDESCRIBED

    def __post_init__(self) -> None:
        told = catalogue_origin(self.task, None) if self.origin == UNDESCRIBED else self.origin
        # lm-eval reads its data itself: no path tells them from a set of the same name.
        object.__setattr__(self, "origin", dataclasses.replace(told, path=None))

    def check_files(self) -> None:
        """Raise ConfigError if the folder of task files does not exist."""
        if self.include_path is not None and not self.include_path.is_dir():
            raise ConfigError(f"eval task {self.task}: include_path={self.include_path}: no such folder")
