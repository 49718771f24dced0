"""Between Hydra's sweeper and the grid: composes the cells of a multirun."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from quantbench.config.compose import cell_from, check_additions, group_names
from quantbench.launch.entry import reporting_errors


def launch_batch(loader: ConfigLoader, config: DictConfig, job_overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
    """Check every cell, then run them all; ends the process non-zero with one message if something is wrong."""
    with reporting_errors():
        groups = group_names(loader)
        composed = []
        for overrides in job_overrides:
            cell_config = loader.load_sweep_config(config, list(overrides))
            check_additions(overrides, cell_config, groups)
            composed.append(cell_config)
        from quantbench.launch.grid import run_grid

        cells = [
            cell_from(c, _own(o), OmegaConf.to_container(c.hydra.runtime.choices))  # type: ignore[arg-type]
            for o, c in zip(job_overrides, composed, strict=True)
        ]
        run_grid(cells, command=list(config.hydra.overrides.task), sweep_params=_sweep_params(config))
    return [_completed(overrides) for overrides in job_overrides]


SHARED = ("sweep=", "cluster", "detach=", "retry_failed=")
"""Beginnings of overrides that say how a sweep is run, the same for all its cells."""


def _own(overrides: Sequence[str]) -> list[str]:
    """The overrides that tell cells apart."""
    return [o for o in overrides if not o.lstrip("+").startswith(SHARED)]


def _sweep_params(config: DictConfig) -> dict[str, str]:
    params = config.hydra.sweeper.get("params") or {}
    return {str(k): str(v) for k, v in params.items()}


def _completed(overrides: Sequence[str]) -> JobReturn:
    result = JobReturn()
    result.overrides = list(overrides)
    result.status = JobStatus.COMPLETED
    result.return_value = None
    return result
