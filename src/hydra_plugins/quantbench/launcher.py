"""The launcher Hydra discovers. It only hands the grid on: this module is imported by every Hydra application."""

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class QuantbenchLauncherConf:
    """Options of `hydra.launcher` when it is quantbench's own."""

    _target_: str = "hydra_plugins.quantbench.launcher.QuantbenchLauncher"


ConfigStore.instance().store(
    group="hydra/launcher", name="quantbench", node=QuantbenchLauncherConf, provider="quantbench"
)


class QuantbenchLauncher(Launcher):
    """Composes and checks every cell of a grid before the first one runs."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what `launch` needs (Hydra's contract)."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:  # noqa: ARG002
        """Make the cells of a batch; `quantbench.config.application.run` runs them when Hydra is through."""
        from quantbench.config.application import make_batch

        make_batch(self.hydra_context.config_loader, self.config, job_overrides)
        return [_completed(overrides) for overrides in job_overrides]


def _completed(overrides: Sequence[str]) -> JobReturn:
    result = JobReturn()
    result.overrides = list(overrides)
    result.status = JobStatus.COMPLETED
    result.return_value = None
    return result
