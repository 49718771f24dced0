"""Hydra's basic sweeper without its own check of every cell, and without a folder of its own.

The launcher checks the cells, and composing is slow; what a sweep is made of stands in quantbench's results.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn


@dataclass
class QuantbenchSweeperConf:
    """Options of `hydra.sweeper`: those of the basic one."""

    _target_: str = "hydra_plugins.quantbench.sweeper.QuantbenchSweeper"
    max_batch_size: Any = None
    params: Any = field(default_factory=dict)


ConfigStore.instance().store(
    group="hydra/sweeper", name="quantbench", node=QuantbenchSweeperConf, provider="quantbench"
)


class QuantbenchSweeper(BasicSweeper):
    """Every combination of the values given, in one batch."""

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Hand every combination to the launcher (Hydra's contract); nothing is written."""
        assert self.launcher is not None
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        returns: list[Sequence[JobReturn]] = []
        n = 0
        for batch in self.split_arguments(given, self.max_batch_size):
            returns.append(self.launcher.launch(batch, initial_job_idx=n))
            n += len(batch)
        return returns
