"""A measured number, as it is stored and compared."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from quantbench.core.component import STRICT


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Metric:
    """One number over n items. stderr is its standard error over items, None where n = 1 cannot give one."""

    name: str
    value: float
    stderr: float | None
    n: int
    higher_is_better: bool
