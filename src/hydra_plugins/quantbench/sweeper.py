"""Hydra's basic sweeper without its own check of every cell: the launcher checks them, and composing is slow."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore


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

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing here: a launcher that is not quantbench's composes each cell itself as well."""
