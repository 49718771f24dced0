"""Files of one's own in one grid: `calib=local calib.source.path=a.txt,b.txt` makes a table of a and b, tested on both.

A task is a column of the tables and its name stands for one text. The option `local` names its task `local` whatever
the file is, so here each file's task gets the file's name, and every cell the tasks of all files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from quantbench.config.schema import Cell
from quantbench.core.errors import ConfigError
from quantbench.core.paths import short_names
from quantbench.datasets.local_text import LocalText
from quantbench.tasks.task import Task
from quantbench.tasks.windows import TextTask


def name_by_file(cells: Sequence[Cell]) -> list[Cell]:
    """The cells, each file's task under the file's name. Nothing changes where a task has one text in all cells.

    Raises ConfigError if a file's name is that of another task of the cells.
    """
    changed = list(cells)
    for task in {name: None for cell in cells for name in cell.tasks}:
        own = [
            (found, cell.config["calib"]["source"]) for cell in changed if (found := _own_text(cell, task)) is not None
        ]
        names = short_names(dict.fromkeys(str(source.path) for source, _ in own))
        if len(names) < 2 or len({repr(source) for source, _ in own}) != len(names):
            continue
        sources = {names[str(source.path)]: (source, described) for source, described in own}
        taken = sorted(names.keys() & {name for cell in changed for name in cell.tasks} - {task})
        if taken:
            raise ConfigError(f"eval.tasks.{taken[0]}: a task already has the name of the file; rename the file")
        changed = [_with_tasks(cell, task, sources) if _own_text(cell, task) else cell for cell in changed]
    return changed


def _own_text(cell: Cell, task: str) -> LocalText | None:
    """The local text a task tests on, if it is the one the cell names to calibrate on."""
    if task not in cell.tasks:
        return None
    source = getattr(cell.tasks[task], "source", None)
    node = cell.config["eval"].get("tasks", {}).get(task, {})  # a suite component has no such mapping
    same = cell.config["calib"].get("source") == node.get("source")
    return source if same and isinstance(source, LocalText) else None


def _with_tasks(cell: Cell, task: str, sources: dict[str, tuple[LocalText, dict[str, Any]]]) -> Cell:
    tasks: dict[str, Task] = {}
    nodes: dict[str, Any] = {}
    node = cell.config["eval"]["tasks"][task]
    for name, found in cell.tasks.items():
        if name != task or not isinstance(found, TextTask):
            tasks[name] = found
            nodes[name] = cell.config["eval"]["tasks"][name]
            continue
        tasks |= {label: _on(found, source) for label, (source, _) in sources.items()}
        nodes |= {label: {**node, "source": described} for label, (_, described) in sources.items()}
    config = {**cell.config, "eval": {**cell.config["eval"], "tasks": nodes}}
    return dataclasses.replace(cell, tasks=tasks, config=config)


def _on(task: TextTask, source: LocalText) -> TextTask:
    options: dict[str, Any] = {f.name: getattr(task, f.name) for f in dataclasses.fields(task)}
    return TextTask(**(options | {"source": source}))
