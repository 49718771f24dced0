"""What a configuration has to know of the launcher that `cluster=` selects."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Launcher(Protocol):
    """Runs the cells of a sweep: in the process of the command, or as jobs apart from it."""

    def check(self) -> None:
        """Raise ConfigError if cells cannot be run like that on this machine."""
        ...

    def check_threads(self, threads: int) -> None:
        """Raise ConfigError if a job has fewer cores than a cell has threads. Asks nothing of the machine."""
        ...
