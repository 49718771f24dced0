"""Which rows of the tidy frame are shown together: one model, one scale, one protocol per test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantbench.core.errors import StoreError
from quantbench.report.columns import ResultRow
from quantbench.report.variants import WITH
from quantbench.report.wording import Row


@dataclass(frozen=True)
class Study:
    """The tidy rows, of one metric, of recipes of one model and scale that are tested alike.

    protocols  of each task; None where it never became known
    """

    sweep: str
    model: str
    scale: str
    rows: list[ResultRow]
    protocols: dict[str, str | None]

    @property
    def key(self) -> tuple[str, str, str]:
        """Sweep, model and scale."""
        return self.sweep, self.model, self.scale

    @property
    def scale_option(self) -> str:
        """The scale's option, without what of it is otherwise."""
        return self.scale.partition(WITH)[0]

    @property
    def title(self) -> str:
        """Model and scale in a few words; what of the scale is otherwise stands in what a table opens with."""
        return ", ".join(part for part in (self.model, self.scale_option) if part)

    def columns(self) -> dict[str, str]:
        """The name of each task's column: its distribution, or the task where two tasks share a distribution."""
        tasks = [task for task in dict.fromkeys(row["task"] for row in self.rows) if task in self.protocols]
        names = {row["task"]: row["distribution"] for row in self.rows if row["distribution"]}
        wanted = [names.get(task) or task for task in tasks]
        return {task: name if wanted.count(name) == 1 else task for task, name in zip(tasks, wanted, strict=True)}

    def has(self, row: Row) -> bool:
        """Whether a comparison is one of this study."""
        same = (row["sweep"], row["model"], row["scale"]) == self.key
        return same and row["task"] in self.protocols and self.protocols[row["task"]] in {None, row["protocol"]}


def studies_of(rows: Sequence[ResultRow]) -> list[Study]:
    """The studies, in the order of the rows; full precision stands in each study of its model and scale.

    Raises StoreError if runs of one recipe have scores of a task under two protocols.
    """
    quantized = [row for row in rows if not row["full_precision"]]
    by_recipe: dict[tuple[str, ...], list[ResultRow]] = {}
    for row in quantized or rows:
        by_recipe.setdefault((*_study(row), row["quantizer"], row["variant"]), []).append(row)
    found: list[Study] = []
    for own in by_recipe.values():
        protocols = _protocols(own)
        alike = [study for study in found if study.key == _study(own[0]) and _agree(study.protocols, protocols)]
        if alike:
            alike[0].rows.extend(own)
            alike[0].protocols.update({task: one for task, one in protocols.items() if one is not None})
            for task in protocols:
                alike[0].protocols.setdefault(task, None)
        else:
            found.append(Study(*_study(own[0]), own, protocols))
    for study in found if quantized else []:
        full = [row for row in rows if row["full_precision"] and _study(row) == study.key]
        study.rows[:0] = [row for row in full if _agree({row["task"]: row["protocol"]}, study.protocols)]
    return found


def _study(row: ResultRow) -> tuple[str, str, str]:
    return row["sweep"], row["model"], row["scale"]


def _agree(some: Mapping[str, str | None], others: Mapping[str, str | None]) -> bool:
    return all(None in (one, others.get(task)) or one == others[task] for task, one in some.items())


def _protocols(rows: Sequence[ResultRow]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for row in rows:
        task, protocol = row["task"], row["protocol"]
        known = found.setdefault(task, protocol)
        if None not in (known, protocol) and known != protocol:
            raise StoreError(
                f"task {task}: scores of protocol {known} and of protocol {protocol} in one table. The scores' "
                "protocol_values say what differs: make it the same, or give each its own scale or variant"
            )
        found[task] = known or protocol
    return found
