"""The order of rows: numbers in names count as numbers, metrics come as they are listed."""

from __future__ import annotations

import re
from functools import cache

from quantbench.metrics.metrics import METRICS


@cache
def natural(value: str | int | None) -> tuple[str | int, ...]:
    """A key for sorting: text and numbers in turn, beginning with text."""
    parts = re.split(r"(\d+)", "" if value is None else str(value))
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts))


@cache
def of_metric(name: str | None) -> tuple[int, str]:
    """A key for sorting: the position in METRICS, then the name."""
    return _POSITIONS.get(name or "", len(_POSITIONS)), name or ""


_POSITIONS = {name: position for position, name in enumerate(METRICS)}
