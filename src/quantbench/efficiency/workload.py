"""What is measured: prompts and generated tokens of random ids, which cost what any others do."""

from __future__ import annotations

from dataclasses import dataclass

from quantbench.core.errors import ConfigError


@dataclass(frozen=True)
class Workload:
    """Sequences that are generated together.

    batch    sequences; context: tokens of each prompt; decode: tokens generated after it
    warm_up  repetitions before those that count; repeat: those that count
    """

    batch: int = 1
    context: int = 512
    decode: int = 64
    warm_up: int = 1
    repeat: int = 5

    def check(self, positions: int | None) -> None:
        """Raise ConfigError for numbers that make no sense, or a context longer than the model's `positions`."""
        for name, least in (("batch", 1), ("context", 1), ("decode", 1), ("warm_up", 0), ("repeat", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)}: give {least} or more")
        if positions is not None and self.context + self.decode > positions:
            raise ConfigError(
                f"--context {self.context} and --decode {self.decode}: the model takes {positions} positions"
            )
