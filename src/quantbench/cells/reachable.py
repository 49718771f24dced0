"""Whether models and data can be had at all, asked before the libraries that compute are imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

from quantbench.config.cell import Cell
from quantbench.config.node import ConfigNode
from quantbench.core.errors import QuantbenchError

ADVICE = ". On a machine with network "
"""Begins what the messages about data and models that cannot be reached advise."""


@runtime_checkable
class Reachable(Protocol):
    """What reads data, and can tell without reading them whether they can be had."""

    def check_reachable(self) -> None:
        """Raise DataError if they are neither here nor can be fetched. Imports nothing that takes seconds."""
        ...


def check_reachable(cells: Sequence[Cell]) -> None:
    """Raises QuantbenchError that lists every model and data set of the cells that cannot be had."""
    problems: dict[str, None] = {}
    asked: set[ConfigNode[Any]] = set()
    for cell in cells:
        for node, check in _checks(cell):
            if node not in asked:
                asked.add(node)
                try:
                    check()
                except QuantbenchError as error:
                    problems[str(error)] = None
    if problems:
        raise QuantbenchError("nothing was run.\n" + "\n".join(with_common_advice(list(problems))))


def with_common_advice(problems: Sequence[str]) -> Iterator[str]:
    """One line a problem; the sentences that several end with stand once, behind the last of them."""
    endings = [problem.partition(ADVICE) for problem in problems]
    for index, (what, sign, advice) in enumerate(endings):
        repeated = sign and any(advice == later for _, _, later in endings[index + 1 :])
        yield f"- {what}." if repeated else f"- {what}{sign}{advice}"


def _checks(cell: Cell) -> Iterator[tuple[ConfigNode[Any], Callable[[], None]]]:
    yield cell.model_part, cell.model.check_reachable
    for part in (cell.calib_part, *cell.task_parts.values()):
        if part is not None:
            yield part, partial(_check, part)


def _check(part: ConfigNode[Any]) -> None:
    if isinstance(part.component, Reachable):
        part.component.check_reachable()
