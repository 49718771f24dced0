"""Between Hydra's sweeper and the grid: composes the cells of a multirun."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from quantbench.config.compose import CellMaker
from quantbench.config.factored import Composer
from quantbench.launch.axes import as_typed


def launch_batch(loader: ConfigLoader, config: DictConfig, job_overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
    """Check every cell, then run them all. Raises QuantbenchError or HydraException if something is wrong."""
    composer = Composer(loader, lambda overrides: loader.load_sweep_config(config, overrides))
    composed = [composer.compose(overrides) for overrides in job_overrides]
    from quantbench.launch.grid import run_grid

    make = CellMaker()
    cells = [make(plain, _own(o), chosen) for o, (plain, chosen) in zip(job_overrides, composed, strict=True)]
    run_grid(cells, command=as_typed(config.hydra.overrides.task), sweep_params=_sweep_params(config))
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
