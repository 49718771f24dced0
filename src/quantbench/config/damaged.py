"""Option files that cannot be read: which of the user's it is, and where in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from quantbench.config.catalogue import yaml_problem
from quantbench.config.folders import Folders
from quantbench.core.errors import ConfigError


def damaged_option(error: BaseException, folders: Folders) -> ConfigError | None:
    """The message for an option file of the user's that cannot be read, if that is behind an error; else None.

    yaml's own errors name their file; for what names none, unless it is Hydra's, the folders of the user's are gone
    through.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, yaml.MarkedYAMLError) and (mark := cause.problem_mark or cause.context_mark) is not None:
            return ConfigError(f"{mark.name}: {yaml_problem(cause)}")
        cause = cause.__cause__ or cause.__context__
    for file in () if isinstance(error, HydraException) else _files(folders):
        try:
            content = OmegaConf.load(file)
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as found:
            return ConfigError(f"{file}: {yaml_problem(found)}")
        if not isinstance(content, DictConfig):
            return ConfigError(f"{file}: expected a mapping of keys, found a list")
    return None


def _files(folders: Folders) -> Iterator[Path]:
    for folder in [*folders.own, *folders.sweeps]:
        yield from sorted(folder.rglob("*.yaml"))
